//! Debian's formats: control paragraphs, versions, signed release files, binary packages.
