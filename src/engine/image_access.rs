//! What lies below the first layer of an image, asked for once per base. Packs nothing.

use std::time::Instant;

use crate::base::path::RelPath;
use crate::base::tree::Listing;
use crate::engine::event::Log;
use crate::engine::image_base::BaseImage;
use crate::engine::image_memo::{Memo, bytes_of, file_of};
use crate::engine::image_task::Trouble;
use crate::engine::session::Session;
use crate::engine::waiting;
use crate::image::access::Below;
use crate::image::{BlobDigest, ImageError};
use crate::manifest::model::Expected;
use crate::sandbox::spec::Usage;

/// The one output.
const NAME: &str = "below";

/// What is asked for; another word for each way in which it was written down.
const ASKED: &str = "below, with the owners of links";

/// What the layers of a base make. Its blobs were compared with their digests by now.
///
/// Cost: the first time for a store, every layer is unpacked.
pub fn of_base(session: &Session<'_>, base: &BaseImage) -> Result<Below, Trouble> {
    let manifest = BlobDigest::parse(&base.found.descriptor.digest)?;
    let sha256 = manifest.bytes().ok_or_else(|| ImageError::Digest(manifest.to_string()))?;
    let memo = Memo::of(Expected::Sha256(sha256), ASKED);
    if let Some((listing, _)) = memo.find(session)?
        && let Some(below) = bytes_of(session, &listing, NAME)?.and_then(|bytes| Below::decode(&bytes))
    {
        return Ok(below);
    }
    let started = Instant::now();
    let (blobs, found) = (base.blobs.clone(), base.found.clone());
    let unpack = move || Below::of_image(&blobs, &found);
    let below = waiting::unless_cancelled(&session.cancel, unpack).ok_or(Trouble::Cancelled)??;
    let listing = Listing::from([(RelPath::root().child(NAME), file_of(session, &below.encode())?)]);
    let told = ("what a base has".to_owned(), started, &Log::new(), Usage::default());
    memo.keep(session, &listing, told, None)?;
    Ok(below)
}
