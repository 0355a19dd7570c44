//! Which RabbitMQ is it? Read from the first thing it says, `connection.start`.
//!
//! It must be known before a queue is declared: from 4.0 on a delivery limit of -1 means none, and
//! is needed, for the default is to drop what was redelivered 20 times. Before 4.0 the default is
//! none, and -1 is taken without complaint and drops what is redelivered once. The client library
//! keeps what the server tells of itself to itself, so this greets on a connection of its own.

use std::io;

use futures_util::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The header of a frame: type, channel, size of what follows.
const HEADER: usize = 7;

/// Type of a frame that holds a method.
const METHOD: u8 = 1;

/// No greeting is as long.
const MOST: usize = 64 << 10;

/// The field `version` of the server's properties: its name with its length, and type text.
const VERSION: &[u8] = b"\x07versionS";

/// The major version of the RabbitMQ behind `stream`; 0 when it does not say.
pub(super) async fn major_version(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<u16> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    stream.flush().await?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let [kind, _, _, size @ ..] = header;
    let size = u32::from_be_bytes(size) as usize;
    if kind != METHOD || size > MOST {
        return Ok(0);
    }
    let mut start = vec![0; size];
    stream.read_exact(&mut start).await?;
    Ok(read(&start).unwrap_or(0))
}

fn read(start: &[u8]) -> Option<u16> {
    let at = start.windows(VERSION.len()).position(|window| window == VERSION)?;
    let (size, text) = start.get(at + VERSION.len()..)?.split_first_chunk()?;
    let text = text.get(..u32::from_be_bytes(*size) as usize)?;
    std::str::from_utf8(text).ok()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_and_nothing_else_confuses_it() {
        let start = |version: &str| {
            let size = u32::try_from(version.len()).expect("short").to_be_bytes();
            [b"\x00\x0a\x00\x0a\x00\x09..\x07productS\x00\x00\x00\x08RabbitMQ", VERSION, &size]
                .concat()
                .into_iter()
                .chain(version.bytes())
                .chain(*b"\x00PLAIN")
                .collect::<Vec<_>>()
        };
        assert_eq!(read(&start("3.10.8")), Some(3));
        assert_eq!(read(&start("4.1.0-rc.1")), Some(4));
        assert_eq!(read(&start("unknown")), None);
        assert_eq!(read(&start("")), None);
        let whole = start("13.2");
        for end in 0..whole.len() {
            assert!(matches!(read(&whole[..end]), None | Some(13)), "cut at {end}");
        }
    }
}
