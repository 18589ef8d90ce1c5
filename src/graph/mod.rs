//! Stages and how they depend on each other: stage.toml, the checked graph, keys and reasons.
