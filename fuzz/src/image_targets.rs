//! Targets of OCI images: layouts, and the layers of an image.

use pnb::{
    image::oci::{
        AppliedLayers, ImageFacts, LAYOUT_FILE, LayerCompression, LayerEntries, LayerLimits, LayoutReader, OCI_INDEX,
        OciImage, WrittenLayer, apply_layers, blob_path, image_documents, layout_file, layout_index, take_kernel,
        write_layer,
    },
    model::{Arch, Epoch, RelPath, Sha256Digest, VerityDigest, ZstdLevel},
    verity::{Both, digest_bytes},
};
use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    num::NonZeroU32,
};

/// The files of an image layout by their paths.
pub(crate) type LayoutFiles = BTreeMap<String, Vec<u8>>;

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    let mut both = Both::new();
    both.update(bytes);
    both.finish().sha256
}

/// A layout as one input: each file as the length of its name in one byte, the name, the length of its content in four, and the content.
pub(crate) fn layout_files(mut data: &[u8]) -> LayoutFiles {
    fn take<'a>(data: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = data.split_at_checked(count)?;
        *data = rest;
        Some(taken)
    }
    let mut file = || {
        let length = take(&mut data, 1)?[0];
        let name = String::from_utf8_lossy(take(&mut data, length.into())?).into_owned();
        let length: [u8; 4] = take(&mut data, 4)?.try_into().ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?.min(data.len());
        Some((name, take(&mut data, length)?.to_vec()))
    };
    std::iter::from_fn(&mut file).collect()
}

/// Applies the layers of each image in a layout; returns the entries of all.
pub(crate) fn layout(data: &[u8]) -> usize {
    let files = layout_files(data);
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let bytes = files.get(&path.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    let layout = LayoutReader::new(&open);
    let Ok(found) = layout.manifests() else { return 0 };
    assert!(found.len() <= 64);
    let images = found.iter().flat_map(|descriptor| OciImage::read(&layout, descriptor));
    let applied = images.flat_map(|image| {
        assert!((1..=127).contains(&image.layers.len()));
        let _ = image.claimed_root();
        applied(&layout, &image, &mut BTreeMap::new())
    });
    applied.map(|applied| applied.tree.len()).sum()
}

/// Applies the layers of an image within small limits, which hold.
fn applied(
    layout: &LayoutReader<'_>,
    image: &OciImage,
    contents: &mut BTreeMap<VerityDigest, Vec<u8>>,
) -> Option<AppliedLayers> {
    let limits = LayerLimits {
        entries: 2000,
        bytes: 8 << 20,
        names: 1 << 20,
    };
    let mut read = 0;
    let mut put = |_: &RelPath, content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let (digest, size) = (digest_bytes(&bytes), bytes.len() as u64);
        read += size;
        contents.insert(digest, bytes);
        Ok((digest, size))
    };
    let applied = apply_layers(layout, image, Epoch::new(1), &limits, &mut put);
    assert!(read <= limits.bytes, "{read} bytes of contents");
    let applied = applied.ok()?;
    assert!(applied.bytes <= limits.bytes && applied.tree.len() as u64 <= limits.entries);
    let names: usize = applied.tree.iter().map(|(path, _)| path.as_bytes().len()).sum();
    assert!(names as u64 <= limits.names, "{names} bytes of names");
    let _ = take_kernel(&mut applied.tree.clone());
    Some(applied)
}

/// An image of these archives, applied; `None` if it is refused.
fn image_of(archives: &[&[u8]], contents: &mut BTreeMap<VerityDigest, Vec<u8>>) -> Option<AppliedLayers> {
    let mut files = LayoutFiles::new();
    let mut layers = Vec::new();
    for archive in archives {
        let blob = zstd::encode_all(*archive, 1).expect("in memory");
        let written = WrittenLayer {
            digest: sha256(&blob),
            size: blob.len() as u64,
            diff_id: sha256(archive),
            compression: LayerCompression::Zstd,
        };
        files.insert(blob_path(&written.digest), blob);
        layers.push(("layer".to_owned(), written));
    }
    let facts = ImageFacts {
        arch: Arch::Amd64,
        created: Epoch::new(1),
        kernel_version: "1",
        root: VerityDigest::new([0; 32]),
    };
    let (config, manifest) = image_documents(&facts, &layers).expect("documents");
    for document in [&config, &manifest] {
        files.insert(blob_path(&document.digest()), document.bytes.clone());
    }
    files.insert(LAYOUT_FILE.to_owned(), layout_file().expect("text"));
    let index = layout_index(&manifest.descriptor).expect("an index");
    files.insert(OCI_INDEX.to_owned(), index);
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let bytes = files.get(&path.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    let layout = LayoutReader::new(&open);
    let image = OciImage::find(&layout, Arch::Amd64).expect("just written");
    applied(&layout, &image, contents)
}

/// Two layers, which the first byte divides; their tree, written as one layer, is the same when it is read again. Returns its entries.
pub(crate) fn layers(data: &[u8]) -> usize {
    let Some((at, rest)) = data.split_first() else { return 0 };
    let (lower, upper) = rest.split_at(rest.len() * usize::from(*at) / 256);
    let archives = if upper.is_empty() {
        vec![lower]
    } else {
        vec![lower, upper]
    };
    let mut contents = BTreeMap::new();
    let Some(AppliedLayers { tree, .. }) = image_of(&archives, &mut contents) else {
        return 0;
    };
    let entries = LayerEntries {
        root: Some(tree.root()),
        entries: tree.iter().collect(),
    };
    let open =
        |digest: &VerityDigest| -> io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(contents[digest].clone()))) };
    let mut again = Vec::new();
    let written = write_layer(
        &entries,
        &open,
        LayerCompression::Gzip,
        ZstdLevel::default(),
        NonZeroU32::MIN,
        &mut again,
    );
    // Owners above the octal digits of a header are read and not written.
    if written.is_ok() {
        let mut archive = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&again[..]);
        decoder.read_to_end(&mut archive).expect("just written");
        let second = image_of(&[&archive], &mut contents).expect("just written");
        assert_eq!(second.tree, tree);
    }
    tree.len()
}
