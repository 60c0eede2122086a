//! Content codings, by other hands than the proxy's.

use std::io::Write;

/// What a test puts into a coding, and takes out of it piece by piece.
pub(crate) enum Decoder {
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    Brotli(Box<brotli::DecompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Decoder {
    pub(crate) fn new(coding: &str) -> Self {
        match coding {
            "gzip" => Self::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
            "br" => Self::Brotli(Box::new(brotli::DecompressorWriter::new(Vec::new(), 4096))),
            "zstd" => Self::Zstd(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
            other => panic!("{other}"),
        }
    }

    /// All that is known once these bytes are too.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref().clone()
            }
            Self::Brotli(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref().clone()
            }
            Self::Zstd(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref().clone()
            }
        }
    }
}

/// The whole of something out of its coding; it must be whole.
pub(crate) fn decode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        "gzip" => drop(std::io::copy(&mut flate2::read::MultiGzDecoder::new(bytes), &mut decoded).unwrap()),
        "br" => brotli::BrotliDecompress(&mut &*bytes, &mut decoded).unwrap(),
        "zstd" => decoded = zstd::stream::decode_all(bytes).unwrap(),
        other => panic!("{other}"),
    }
    decoded
}

/// Something in a coding.
pub(crate) fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    match coding {
        "gzip" | "x-gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut encoded, flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap();
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(&mut encoded, flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap();
        }
        "br" => {
            brotli::BrotliCompress(
                &mut &*bytes,
                &mut encoded,
                &brotli::enc::BrotliEncoderParams { quality: 4, ..Default::default() },
            )
            .unwrap();
        }
        "zstd" => encoded = zstd::stream::encode_all(bytes, 3).unwrap(),
        other => panic!("{other}"),
    }
    encoded
}
