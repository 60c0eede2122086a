//! Content codings (RFC 9110, section 8.4.1): one by one, by whatever codec has them.
//!
//! The codecs of async-compression (`compression-codecs`) are driven directly: its streams, and so tower-http's layers,
//! do not flush when the application pauses, which would hold back bytes that are there, and end where a body ends, so
//! that trailers have to be carried around them.

use std::io;

use bytes::{Buf, Bytes};
use compression_codecs::brotli::params::EncoderParams as BrotliParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::CParameter;
use compression_codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, EncodeV2, GzipDecoder, GzipEncoder, ZlibDecoder, ZstdDecoder,
    ZstdEncoder,
};
use outrigger_config::route::Coding;

/// As many bytes a codec gives at once.
const PORTION: usize = 16 * 1024;
/// How far back brotli and zstd look, as a power of two: enough for pages, and half a MiB for each response under way.
const WINDOW: u32 = 19;
/// The largest window that a sender's zstd may need, as a power of two (RFC 8878, section 3.1.1.1.2; RFC 9659): 8 MiB.
const MAX_WINDOW: u32 = 23;

/// What an encoder is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Take some of the input.
    Encode,
    /// Give everything that it has taken.
    Flush,
    /// The same, and end.
    Finish,
}

/// An encoder with the room for what it gives.
pub(super) struct Encoder {
    codec: Box<dyn EncodeV2>,
    room: Box<[u8]>,
}

impl Encoder {
    /// Levels that keep up with a fast backend: 5 of 9, 4 of 11, and 3 of 19.
    pub(super) fn new(coding: Coding) -> Option<Self> {
        let codec: Box<dyn EncodeV2> = match coding {
            Coding::Gzip => Box::new(GzipEncoder::new(Level::Precise(5).into())),
            Coding::Brotli => {
                let params = BrotliParams::default().quality(Level::Precise(4)).window_size(WINDOW as i32);
                Box::new(BrotliEncoder::new(params))
            }
            Coding::Zstd => Box::new(ZstdEncoder::new_with_params(3, &[CParameter::window_log(WINDOW)])),
            Coding::Deflate => return None,
        };
        Some(Self { codec, room: vec![0; PORTION].into() })
    }

    /// One step: what it gave, and whether that was all.
    pub(super) fn step(&mut self, step: Step, input: &mut Bytes) -> io::Result<(Bytes, bool)> {
        let mut output = WriteBuffer::new_initialized(&mut self.room);
        let done = match step {
            Step::Encode => {
                let mut source = PartialBuffer::new(&input[..]);
                self.codec.encode(&mut source, &mut output)?;
                let taken = source.written_len();
                input.advance(taken);
                input.is_empty()
            }
            Step::Flush => self.codec.flush(&mut output)?,
            Step::Finish => self.codec.finish(&mut output)?,
        };
        Ok((Bytes::copy_from_slice(output.written()), done))
    }
}

/// A decoder with the room for what it gives.
pub(super) struct Decoder {
    codec: Codec,
    room: Box<[u8]>,
    /// Whether the last step filled the room, so that there may be more.
    full: bool,
    /// Whether it is inside a member, and more must come.
    inside: bool,
}

enum Codec {
    Gzip(GzipDecoder),
    Brotli(BrotliDecoder),
    Zstd(ZstdDecoder),
    Zlib(ZlibDecoder),
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        let codec = match coding {
            Coding::Gzip => Codec::Gzip(GzipDecoder::new()),
            Coding::Brotli => Codec::Brotli(BrotliDecoder::new()),
            Coding::Zstd => {
                use compression_codecs::zstd::params::DParameter;
                Codec::Zstd(ZstdDecoder::new_with_params(&[DParameter::window_log_max(MAX_WINDOW)]))
            }
            Coding::Deflate => Codec::Zlib(ZlibDecoder::new()),
        };
        Self { codec, room: vec![0; PORTION].into(), full: false, inside: false }
    }

    /// Whether it may give something although there is no input.
    pub(super) const fn has_more(&self) -> bool {
        self.full
    }

    /// Whether the input may end here, once there is nothing more.
    pub(super) fn may_end(&mut self) -> bool {
        if let (true, Codec::Zlib(codec)) = (self.inside, &mut self.codec) {
            // zlib's end may have been among what was flushed, which does not say so.
            let mut output = WriteBuffer::new_initialized(&mut self.room);
            return DecodeV2::finish(codec, &mut output).is_ok_and(|done| done && output.written_len() == 0);
        }
        !self.inside
    }

    /// One step: what it gave.
    pub(super) fn step(&mut self, input: &mut Bytes) -> io::Result<Bytes> {
        if !self.inside && !input.is_empty() {
            self.begin()?;
        }
        let mut output = WriteBuffer::new_initialized(&mut self.room);
        let mut source = PartialBuffer::new(&input[..]);
        let done = match (&mut self.codec, input.is_empty()) {
            // zlib's decoders call an empty input an error; asked to flush, they give what they hold.
            (Codec::Gzip(codec), true) => DecodeV2::flush(codec, &mut output).map(|_| false),
            (Codec::Zlib(codec), true) => DecodeV2::flush(codec, &mut output).map(|_| false),
            (Codec::Gzip(codec), _) => DecodeV2::decode(codec, &mut source, &mut output),
            (Codec::Zlib(codec), _) => DecodeV2::decode(codec, &mut source, &mut output),
            (Codec::Brotli(codec), _) => DecodeV2::decode(codec, &mut source, &mut output),
            (Codec::Zstd(codec), _) => DecodeV2::decode(codec, &mut source, &mut output),
        }?;
        let taken = source.written_len();
        self.full = output.has_no_spare_space();
        let given = Bytes::copy_from_slice(output.written());
        let stuck = !done && taken == 0 && given.is_empty() && !input.is_empty();
        input.advance(taken);
        if done {
            (self.inside, self.full) = (false, false);
        }
        if stuck { Err(io::ErrorKind::InvalidData.into()) } else { Ok(given) }
    }

    /// Begins a member. A body of gzip or zstd may have several (RFC 1952, section 2.2; RFC 8878, section 3).
    fn begin(&mut self) -> io::Result<()> {
        self.inside = true;
        match &mut self.codec {
            Codec::Gzip(codec) => codec.reinit(),
            Codec::Zstd(codec) => codec.reinit(),
            Codec::Brotli(codec) => codec.reinit(),
            Codec::Zlib(codec) => codec.reinit(),
        }
    }
}
