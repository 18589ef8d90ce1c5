//! fs-verity digests and Merkle trees, computed in user space.
