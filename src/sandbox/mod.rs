//! What each stage runs in: a plain spec, and the executor that obeys it.
