//! fs-verity digests and Merkle trees, computed in user space.
//!
//! The parameters are fixed to those that a node checks: SHA-256, 4 KiB blocks, no salt, no signature in the descriptor.
//!
//! - file of no bytes: the root hash is 32 zero bytes;
//! - file of one block: the root hash is the hash of that block, padded with zeros to 4 KiB;
//! - otherwise the hashes of the blocks, 128 to a 4 KiB block, form level 0, the hashes of *its* blocks level 1, and so on
//!   until a level is one block; the root hash is the hash of that block.
//!
//! The fs-verity digest, which the kernel reports and which names an object, is the SHA-256 of the 256-byte descriptor that holds
//! the root hash.
//! Source: <https://docs.kernel.org/filesystems/fsverity.html>, "Merkle tree" and "fs-verity descriptor".

mod block;
mod descriptor;
mod error;
mod hasher;
mod lanes;
mod merkle;

pub use block::BLOCK_SIZE;
pub use descriptor::DESCRIPTOR_SIZE;
pub use error::VerityError;
pub use hasher::{Both, Digests, Hasher, copy_digest, digest_bytes, digest_reader};
pub use merkle::{Baked, MerkleTree};
