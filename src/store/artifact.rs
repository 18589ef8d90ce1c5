//! Objects become files of an artifact; their content is hashed on the way out.

use super::{
    ObjectMode, Store,
    error::{IoContext, Operation, StoreError},
    hash_cache::Stamp,
    incoming::{CHUNK, Spare},
    objects::is_there,
    sparse::{Pages, read_at, write_sparse_at},
};
use crate::{
    model::{VerityDigest, lock},
    verity::{self, Digests},
};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    sync::Mutex,
};

/// Copies that were written together with their objects, by digest.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<BTreeMap<VerityDigest, Vec<Spare>>>);

impl Store {
    pub(super) fn keep_spare(&self, spare: Spare) {
        let mut spares = lock(&self.spares.0);
        spares.entry(spare.digests.verity).or_default().push(spare);
    }

    fn take_spare(&self, digest: &VerityDigest) -> Option<Spare> {
        lock(&self.spares.0).get_mut(digest)?.pop()
    }

    /// Writes the content of an object to the new file `target`, in which blocks of zeros are holes.
    ///
    /// The copy that [`Store::put_artifact`] made is renamed to `target`, if there is one and its inode has not changed. Otherwise the
    /// object is copied and hashed, and a damaged one is an error. In an ephemeral store, `target` becomes a link to an object that was
    /// hashed; for an artifact that [`Store::hash_artifact`] has hashed, only the digests are returned and no file is made.
    pub fn copy_out(&self, digest: &VerityDigest, target: &Path) -> Result<Digests, StoreError> {
        if let Some(spare) = self.take_spare(digest)
            && fs::symlink_metadata(&spare.path).is_ok_and(|found| Stamp::from(&found) == spare.stamp)
            && renameat2(AT_FDCWD, &spare.path, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE).is_ok()
        {
            return Ok(spare.digests);
        }
        if let Some(digests) = self.known.unkept(digest)
            && self.find_object(digest)?.is_none()
        {
            return Ok(digests);
        }
        if let Some(digests) = self.link_out(digest, target)? {
            return Ok(digests);
        }
        let source = self.object_path(digest)?;
        let from = File::open(&source).at(Operation::Open, &source)?;
        let to = File::create_new(target).at(Operation::Create, target)?;
        let digests = match self.known.sha256_of(digest) {
            None => {
                let mut both = verity::Both::new();
                self.copy((&from, &source), (&to, target), &mut |bytes| both.update(bytes))?;
                both.finish()
            }
            // The SHA-256 belongs to the fs-verity digest, which is computed again: one hash is enough.
            Some(sha256) => {
                let mut hasher = verity::Hasher::new();
                self.copy((&from, &source), (&to, target), &mut |bytes| hasher.update(bytes))?;
                Digests {
                    sha256,
                    size: hasher.size(),
                    verity: hasher.finish(),
                }
            }
        };
        if digests.verity != *digest {
            return Err(StoreError::Corrupt {
                path: source,
                expected: *digest,
                actual: digests.verity,
            });
        }
        self.known.insert_sha256(digest, digests.sha256);
        Ok(digests)
    }

    /// Makes `target` a link to an object that this program has hashed, if the store is ephemeral: its artifacts are not edited.
    fn link_out(&self, digest: &VerityDigest, target: &Path) -> Result<Option<Digests>, StoreError> {
        let Some(sha256) = self.known.sha256_of(digest).filter(|_| self.ephemeral) else {
            return Ok(None);
        };
        let source = self.object_path(digest)?;
        let found = fs::symlink_metadata(&source).at(Operation::Open, &source)?;
        let mode = ObjectMode::of_executable(source != self.object_file(digest, ObjectMode::Plain));
        if !self.known.holds(digest, mode, &found) || fs::hard_link(&source, target).is_err() {
            return Ok(None);
        }
        Ok(Some(Digests {
            sha256,
            verity: *digest,
            size: found.len(),
        }))
    }

    /// Both digests of the content of an object, which is damaged if the fs-verity digest differs from `digest`. The content is hashed,
    /// unless this program has hashed it before and the inode has the same stamp.
    pub fn digests_of(&self, digest: &VerityDigest) -> Result<Digests, StoreError> {
        let plain = self.object_file(digest, ObjectMode::Plain);
        let mode = ObjectMode::of_executable(!is_there(&plain)?);
        let path = self.object_path(digest)?;
        let file = File::open(&path).at(Operation::Open, &path)?;
        let found = file.metadata().at(Operation::Open, &path)?;
        if let Some(sha256) = self.known.sha256_of(digest)
            && self.known.holds(digest, mode, &found)
        {
            return Ok(Digests {
                sha256,
                verity: *digest,
                size: found.len(),
            });
        }
        let mut both = verity::Both::new();
        self.read((&file, &path), Pages::Stay, &mut |bytes| {
            both.update(bytes);
            Ok(())
        })?;
        let digests = both.finish();
        self.known.insert_sha256(&digests.verity, digests.sha256);
        if digests.verity == *digest {
            self.known.insert(digest, mode, Stamp::from(&found));
        }
        Ok(digests)
    }

    /// Copies a whole file into an empty one; `see` is called with its bytes in order.
    fn copy(
        &self,
        from: (&File, &Path),
        (to, target): (&File, &Path),
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        let mut size = 0;
        self.read(from, Pages::Drop, &mut |bytes| {
            see(bytes);
            write_sparse_at(to, bytes, size, Pages::Drop).at(Operation::Write, target)?;
            size += bytes.len() as u64;
            Ok(())
        })?;
        to.set_len(size).at(Operation::Write, target)
    }

    /// Reads a file; `take` is called with its bytes in order.
    fn read(
        &self,
        (file, path): (&File, &Path),
        pages: Pages,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut buffer = self.buffers.take();
        let mut at = 0;
        let ended = loop {
            let chunk = &mut buffer[..CHUNK];
            let taken = match read_at(file, chunk, at, pages) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    at += n as u64;
                    take(&chunk[..n])
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e).at(Operation::Read, path),
            };
            if taken.is_err() {
                break taken;
            }
        };
        self.buffers.give_back(buffer);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Once, SharedStores, buffer::BUFFER, objects::sorted_names};
    use std::{os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

    struct Fixture {
        dir: tempfile::TempDir,
        store: Arc<Store>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(&dir.path().join("store")).expect("opens");
            Self { dir, store }
        }

        /// Stores an artifact that will be copied out `copies` times; returns its digest.
        fn put(&self, bytes: &[u8], copies: usize) -> VerityDigest {
            let stored = self.store.put_artifact(ObjectMode::Plain, &mut Once(bytes), copies);
            stored.expect("stored").0
        }

        fn out(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Files in this program's scratch directory, without its lock.
        fn scratch(&self) -> Vec<PathBuf> {
            let dir = self.store.scratch_path("x").parent().expect("scratch").to_owned();
            let names = sorted_names(&dir).expect("listed");
            names.iter().filter(|n| *n != "lock").map(|n| dir.join(n)).collect()
        }
    }

    /// Content too large to be held in memory, with zeros in the middle and at its end.
    fn large() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..2 * BUFFER as u32 + 77).map(|i| (i % 251) as u8 + 1).collect();
        bytes[BUFFER..BUFFER + (1 << 20)].fill(0);
        let end = bytes.len() - 5000;
        bytes[end..].fill(0);
        bytes
    }

    fn digests(bytes: &[u8]) -> Digests {
        let mut both = verity::Both::new();
        both.update(bytes);
        both.finish()
    }

    #[test]
    fn content_comes_out_as_it_went_in_with_both_digests() {
        let place = Fixture::new();
        for (n, bytes) in [large(), large()[..BUFFER].to_vec(), b"small".to_vec()]
            .iter()
            .enumerate()
        {
            let put = place
                .store
                .put_artifact(ObjectMode::Plain, &mut Once(&bytes[..]), 1)
                .expect("stored");
            let expected = digests(bytes);
            assert_eq!(put, (expected.verity, expected.size));
            // The copy that was written with the object, and then one of the object.
            for round in 0..2 {
                let out = place.out(&format!("{n}-{round}"));
                assert_eq!(place.store.copy_out(&expected.verity, &out).expect("copied"), expected);
                assert!(fs::read(&out).expect("readable") == *bytes, "{n}, round {round}");
            }
            assert_eq!(place.scratch(), Vec::<PathBuf>::new());
            place.store.verify_object(&expected.verity).expect("whole");
        }
    }

    #[test]
    fn zeros_are_holes_in_object_and_copies() {
        let place = Fixture::new();
        let bytes = large();
        let digest = place.put(&bytes, 1);
        for name in ["first", "second"] {
            place.store.copy_out(&digest, &place.out(name)).expect("copied");
        }
        let object = place.store.object_path(&digest).expect("there");
        for path in [object, place.out("first"), place.out("second")] {
            File::open(&path).expect("there").sync_all().expect("synced");
            let found = fs::metadata(&path).expect("there");
            assert!(
                found.blocks() * 512 <= found.len() - (1 << 20),
                "{} sectors",
                found.blocks()
            );
        }
    }

    #[test]
    fn a_copy_is_a_file_of_its_own() {
        let place = Fixture::new();
        let bytes = large();
        let digest = place.put(&bytes, 1);
        for name in ["first", "second"] {
            place.store.copy_out(&digest, &place.out(name)).expect("copied");
            fs::write(place.out(name), "edited").expect("a file that may be edited");
        }
        let object = place.store.object_path(&digest).expect("there");
        assert!(fs::read(object).expect("readable") == bytes);
    }

    #[test]
    fn an_ephemeral_store_gives_links_to_what_was_hashed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open_ephemeral(&dir.path().join("store"), SharedStores::default()).expect("opens");
        let out = dir.path().join("out");
        let bytes = large();
        let (digest, _) = store
            .put_artifact(ObjectMode::Plain, &mut Once(&bytes[..]), 1)
            .expect("stored");
        assert_eq!(store.copy_out(&digest, &out).expect("linked"), digests(&bytes));
        let object = store.object_path(&digest).expect("there");
        let inode = |path: &Path| fs::metadata(path).expect("there").ino();
        assert_eq!(inode(&out), inode(&object));
        store.copy_out(&digest, &out).expect_err("it is there");
        // A change since then is noticed by the stamp, and found by hashing.
        fs::remove_file(&object).expect("ours");
        fs::write(&object, "other").expect("ours");
        let err = store
            .copy_out(&digest, &dir.path().join("second"))
            .expect_err("damaged");
        assert!(matches!(err, StoreError::Corrupt { .. }), "{err}");
    }

    #[test]
    fn a_damaged_object_does_not_get_out() {
        let place = Fixture::new();
        let bytes = large();
        let digest = place.put(&bytes, 1);
        place.store.copy_out(&digest, &place.out("first")).expect("copied");
        // Same length, same time: only the content differs.
        let object = place.store.object_path(&digest).expect("there");
        let mut damaged = bytes;
        damaged[3 * CHUNK] ^= 1;
        fs::remove_file(&object).expect("ours");
        fs::write(&object, damaged).expect("ours");
        crate::store::objects::set_mtime(&object).expect("ours");
        let err = place
            .store
            .copy_out(&digest, &place.out("second"))
            .expect_err("damaged");
        assert!(matches!(err, StoreError::Corrupt { .. }), "{err}");
        // A program that has not stored the object finds the damage too.
        let other = Store::open(place.store.root()).expect("opens");
        let err = other.copy_out(&digest, &place.out("third")).expect_err("damaged");
        assert!(matches!(err, StoreError::Corrupt { .. }), "{err}");
    }

    #[test]
    fn a_copy_that_was_touched_is_not_used() {
        let place = Fixture::new();
        let bytes = large();
        let digest = place.put(&bytes, 1);
        let [spare] = &place.scratch()[..] else {
            panic!("one copy is kept: {:?}", place.scratch())
        };
        let mut file = File::options().write(true).open(spare).expect("ours");
        io::Write::write_all(&mut file, b"touched").expect("ours");
        place.store.copy_out(&digest, &place.out("out")).expect("copied");
        assert!(fs::read(place.out("out")).expect("readable") == bytes);
    }

    #[test]
    fn as_many_copies_are_kept_as_were_asked_for() {
        let place = Fixture::new();
        let bytes = large();
        let digest = place.put(&bytes, 2);
        assert_eq!(place.scratch().len(), 2);
        // Without the object, the files can only be the copies.
        fs::remove_file(place.store.object_path(&digest).expect("there")).expect("ours");
        for name in ["first", "second"] {
            let copied = place.store.copy_out(&digest, &place.out(name)).expect("copied");
            assert_eq!(copied, digests(&bytes));
            assert!(fs::read(place.out(name)).expect("readable") == bytes, "{name}");
        }
        assert_eq!(place.scratch(), Vec::<PathBuf>::new());
        let err = place.store.copy_out(&digest, &place.out("third")).expect_err("gone");
        assert!(matches!(err, StoreError::Missing { .. }), "{err}");
    }

    #[test]
    fn nothing_that_exists_is_replaced() {
        let place = Fixture::new();
        let bytes = large();
        let digest = place.put(&bytes, 1);
        fs::write(place.out("mine"), "mine").expect("written");
        place
            .store
            .copy_out(&digest, &place.out("mine"))
            .expect_err("it is there");
        assert_eq!(fs::read(place.out("mine")).expect("readable"), b"mine");
    }

    #[test]
    fn both_digests_of_an_object_are_what_it_holds() {
        let place = Fixture::new();
        let (digest, _) = place
            .store
            .put_object(ObjectMode::Plain, &mut &b"content"[..])
            .expect("stored");
        for _ in 0..2 {
            assert_eq!(place.store.digests_of(&digest).expect("readable"), digests(b"content"));
        }
        let object = place.store.object_path(&digest).expect("there");
        fs::remove_file(&object).expect("ours");
        fs::write(&object, "CONTENT").expect("ours");
        assert_eq!(place.store.digests_of(&digest).expect("readable"), digests(b"CONTENT"));
    }
}
