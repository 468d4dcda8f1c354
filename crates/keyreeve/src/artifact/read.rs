//! One read of one origin: whole where that is little, else as it comes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::{Either, select};
use futures::stream::{self, BoxStream};
use http::HeaderValue;
use keyreeve_core::time::Timestamp;
use object_store::path::Path;
use object_store::{Attribute, GetOptions, GetRange, GetResult, GetResultPayload};

use super::kept::About;
use super::objects::{Objects, is_changed};
use crate::port::Host;

/// How much of a file is read at once, in bytes.
const PIECE_BYTES: u64 = 256 * 1024;
/// The metadata of an object that is the header of this name.
const VERSION_ID: &str = "x-hive-schema-version-id";

/// A read of an object that is to be kept.
pub(super) enum Read {
    /// It is the one that is known already.
    Same,
    /// All of it.
    Whole(Bytes, About),
    /// It is too large to be kept.
    Large(About),
}

/// What of an object is to be read as it comes.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Which of its bytes; `None` for all.
    pub range: Option<GetRange>,
    /// Of this version only, by the entity tag that its store has given; `None` for whichever there is.
    pub version: Option<String>,
    /// Nothing but what is known of it.
    pub is_head: bool,
}

/// An object as it comes. The stream ends with an error where the origin breaks off.
pub struct Stream {
    /// What is known of the whole object.
    pub about: About,
    /// Which of its bytes come.
    pub range: std::ops::Range<u64>,
    /// The bytes.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl Stream {
    /// The same, which breaks off where the origin lets more than `ms` milliseconds pass. That nobody takes what is there is not
    /// its fault.
    pub(super) fn pausing_at_most(mut self, ms: u64, host: &Arc<dyn Host>) -> Self {
        let host = Arc::clone(host);
        self.body = stream::try_unfold((self.body, host), move |(mut body, host)| async move {
            let until = host.now().mono.plus(ms);
            let piece = match select(body.next(), host.sleep_until(until)).await {
                Either::Left((piece, _)) => piece.transpose()?,
                Either::Right(_) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            Ok(piece.map(|piece| (piece, (body, host))))
        })
        .boxed();
        self
    }
}

/// Reads an object unless it is `known` already; all of it if it has at most `bytes_max`.
pub(super) async fn whole(
    objects: Objects,
    name: Path,
    known: Option<String>,
    bytes_max: usize,
) -> Result<Read, object_store::Error> {
    let options = GetOptions { if_none_match: known, ..GetOptions::default() };
    let found = match objects.read(&name, options).await {
        Err(object_store::Error::NotModified { .. }) => return Ok(Read::Same),
        found => found?,
    };
    let about = about(&found);
    let Ok(size) = usize::try_from(about.size) else { return Ok(Read::Large(about)) };
    if size > bytes_max {
        return Ok(Read::Large(about));
    }
    let mut body = BytesMut::with_capacity(size);
    let mut pieces = pieces(found);
    let broken = |source: io::Error| object_store::Error::Generic { store: "objects", source: source.into() };
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(broken)?;
        if body.len().saturating_add(piece.len()) > size {
            return Err(broken(io::Error::other("there are more bytes than were announced")));
        }
        body.extend_from_slice(&piece);
    }
    if body.len() != size {
        return Err(broken(io::Error::other("there are fewer bytes than were announced")));
    }
    Ok(Read::Whole(body.freeze(), about))
}

/// Reads an object, or a range of it, as it comes. `None` where it is not the version that is wanted.
pub(super) async fn stream(
    objects: Objects,
    name: Path,
    wanted: Wanted,
) -> Result<Option<Stream>, object_store::Error> {
    let Wanted { range, version, is_head } = wanted;
    let options = GetOptions { range, head: is_head, if_match: version.clone(), ..GetOptions::default() };
    match objects.read(&name, options).await {
        // Not every store heeds a condition.
        Ok(found) if version.is_some() && found.meta.e_tag != version => Ok(None),
        Ok(found) => Ok(Some(Stream { about: about(&found), range: found.range.clone(), body: pieces(found) })),
        Err(error) if is_changed(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn about(found: &GetResult) -> About {
    let value =
        |attribute: &Attribute| found.attributes.get(attribute).and_then(|value| HeaderValue::from_str(value).ok());
    About {
        etag: found.meta.e_tag.as_deref().and_then(etag),
        store_etag: found.meta.e_tag.clone(),
        size: found.meta.size,
        modified: Timestamp(u64::try_from(found.meta.last_modified.timestamp_millis()).unwrap_or_default()),
        content_type: value(&Attribute::ContentType),
        version_id: value(&Attribute::Metadata(VERSION_ID.into())),
    }
}

/// An entity tag as HTTP writes it (RFC 9110 8.8.3): some stores leave out the quotes.
pub(super) fn etag(text: &str) -> Option<HeaderValue> {
    let is_quoted = text.strip_prefix("W/").unwrap_or(text).starts_with('"') && text.ends_with('"');
    if is_quoted { HeaderValue::from_str(text).ok() } else { HeaderValue::try_from(format!("\"{text}\"")).ok() }
}

fn pieces(found: GetResult) -> BoxStream<'static, io::Result<Bytes>> {
    match found.payload {
        GetResultPayload::Stream(stream) => stream.map(|piece| piece.map_err(io::Error::other)).boxed(),
        GetResultPayload::File(file, _) => file_pieces(file, found.range).boxed(),
    }
}

/// A file is read where waiting harms nobody, one piece for each that is wanted.
fn file_pieces(file: File, range: std::ops::Range<u64>) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((Some(file), range), |(file, range)| async move {
        let Some(mut file) = file.filter(|_| range.start < range.end) else { return Ok(None) };
        let size = PIECE_BYTES.min(range.end.saturating_sub(range.start));
        let read = tokio::task::spawn_blocking(move || {
            file.seek(SeekFrom::Start(range.start))?;
            let mut piece = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            (&mut file).take(size).read_to_end(&mut piece)?;
            Ok::<_, io::Error>((file, piece))
        });
        let (file, piece) = read.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let start = range.start.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(Some((Bytes::from(piece), (Some(file), start..range.end))))
    })
}
