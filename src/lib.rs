//! pnb: a hermetic, reproducible builder of Powernode boot artifacts.
//!
//! The program `pnb` is a command line on top of this library. `README.md` says how to use it, `docs/architecture.md` how the parts fit
//! together.
//!
//! # Map
//!
//! Data walks down this list, and each room hands the next a value whose type says how far it has come. A room uses only rooms above
//! it, which `tests/tidy.rs` checks.
//!
//! | room | holds | begin with |
//! |---|---|---|
//! | [`model`] | digests, relative paths, architectures, variants, times, trees; no I/O | [`model::Tree`] |
//! | [`verity`] | fs-verity digests and Merkle trees in user space | [`verity::MerkleTree`] |
//! | [`debian`] | packages, control files, versions, signed release files | [`debian::Release`] |
//! | [`lock`] | `lockfile.toml`: format, solver, changes | [`lock::Lockfile`] |
//! | [`http`] | the way to servers, and requests to those to which pnb publishes | [`http::HttpClient`] |
//! | [`fetch`] | addresses of pinned files, downloads that are hashed on arrival | [`fetch::FetchItem`] |
//! | [`registry`] | images and artifacts in OCI registries | [`registry::RegistryClient`] |
//! | [`source`] | the files of a project, opened below its directory, and their comparison with the commit | [`source::SourceTree`] |
//! | [`store`] | objects by digest, trees, build records, collection | [`store::Store`] |
//! | [`graph`] | `stage.toml`, the checked graph, the key of a stage | [`graph::StageGraph`] |
//! | [`sandbox`] | the specification of a sandbox, and its executor | [`sandbox::Spec`] |
//! | [`image`] | formats: cpio, composefs, ext4, zstd, GPT, FAT, qcow2, ISO 9660, ELF, indexes of kernel modules | [`image::ReadAt`] |
//! | [`module`] | trees that a node stacks on its root, and the signed list of them | [`module::write_module`] |
//! | [`inspect`] | the content of an artifact, and the differences between two | [`inspect::open_path`] |
//! | [`writers`] | stages that are Rust instead of a script | [`writers::table`] |
//! | [`manifest`] | the statements beside an artifact | [`manifest::Manifest`] |
//! | [`audit`] | files against statements | [`audit::audit()`] |
//! | [`sign`] | signatures: made with an identity of minutes, verified without a network | [`sign::BundleVerifier`] |
//! | [`repro`] | the circumstances of a build, verdicts on two builds, claims of other builders | [`repro::Axis`] |
//! | [`serve`] | a directory over HTTP and TFTP | [`serve::serve_http`] |
//! | [`boot`] | QEMU, its firmware and servers, and the judgement of its console | [`boot::Machine`] |
//! | [`publish`] | verified artifacts to the places where they are looked for | [`publish::place()`] |
//! | [`remote`] | results of stages in a cache that several machines share | [`remote::RemoteCache`] |
//! | [`pipeline`] | the scheduler, which joins the rooms | [`pipeline::BuildContext`] |
//!
//! # Example
//!
//! An archive of one file as the kernel unpacks it, with the fs-verity digest by which a node would check the file:
//!
//! ```
//! use pnb::{
//!     image::cpio::{CpioReader, CpioWriter},
//!     model::{Epoch, Meta, RelPath},
//!     verity,
//! };
//! use std::io::Read;
//!
//! let path = RelPath::new("etc/hostname")?;
//! let meta = Meta::root(0o644, Epoch::new(1_793_491_200));
//! let mut archive = CpioWriter::new(Vec::new());
//! archive.file(&path, &meta, 5, &mut b"node\n".as_slice())?;
//! let bytes = archive.finish()?;
//!
//! let mut reader = CpioReader::new(bytes.as_slice());
//! let entry = reader.next_entry()?.expect("the file");
//! let mut content = Vec::new();
//! reader.read_to_end(&mut content)?;
//! assert_eq!((entry.name().as_str(), entry.mtime), ("etc/hostname", 1_793_491_200));
//! assert_eq!(verity::digest_bytes(&content), verity::digest_bytes(b"node\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/` has programs on the library: `read_artifact` lists the content of an image, `stage_graph` the stages that a variant needs,
//! and `own_sbom` the crates of pnb.

pub mod audit;
pub mod boot;
pub mod debian;
pub mod fetch;
pub mod graph;
pub mod http;
pub mod image;
pub mod inspect;
pub mod lock;
pub mod manifest;
pub mod model;
pub mod module;
pub mod page;
pub mod pipeline;
pub mod publish;
pub mod registry;
pub mod remote;
pub mod repro;
pub mod sandbox;
pub mod serve;
pub mod sign;
pub mod source;
pub mod store;
pub mod verity;
pub mod writers;
