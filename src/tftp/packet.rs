//! The wire form of TFTP: RFC 1350, options as in RFC 2347.

/// Longest datagram that is read: RFC 2347 §3 limits a request to 512 bytes;
/// some clients with long paths and many options send a little more.
pub const MAX_REQUEST: usize = 1024;

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// RRQ.
    Read(Request),
    /// WRQ: only to be refused.
    Write,
    /// ACK of a block.
    Ack(u16),
    /// ERROR: the client ends the transfer.
    Error(u16, String),
    /// DATA or OACK: nothing a client of ours sends.
    Unexpected,
}

/// A read request, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The file name's bytes.
    pub file: Vec<u8>,
    /// Transfer mode.
    pub mode: Mode,
    /// Options in their order; names in lower case, values as sent. Those
    /// that are not text are left out.
    pub options: Vec<(String, String)>,
}

/// How bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Octet,
    /// With line ends as CR LF (tftp-hpa's default).
    Netascii,
    /// `mail`, obsolete, or nonsense.
    Other,
}

/// Error codes (RFC 1350 §5, RFC 2347 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// See the message.
    Other = 0,
    /// File not found.
    NotFound = 1,
    /// Access violation.
    Access = 2,
    /// Illegal operation.
    Illegal = 4,
}

impl Packet {
    /// Reads a datagram; `None` for what is not TFTP.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (opcode, rest) = bytes.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*opcode) {
            1 => Request::decode(rest).map(Self::Read),
            2 => Some(Self::Write),
            4 => Some(Self::Ack(u16::from_be_bytes(*rest.first_chunk()?))),
            5 => {
                let (code, text) = rest.split_first_chunk::<2>()?;
                let text = text.split(|&b| b == 0).next().unwrap_or_default();
                Some(Self::Error(u16::from_be_bytes(*code), printable(text)))
            }
            3 | 6 => Some(Self::Unexpected),
            _ => None,
        }
    }
}

impl Request {
    fn decode(bytes: &[u8]) -> Option<Self> {
        // A request without its last NUL was cut short.
        let body = bytes.strip_suffix(&[0]).or_else(|| {
            // Some ROMs pad the datagram behind the last NUL.
            let end = bytes.iter().rposition(|&b| b == 0)?;
            bytes.get(..end)
        })?;
        let mut fields = body.split(|&b| b == 0);
        let file = fields.next().filter(|f| !f.is_empty())?.to_vec();
        let mode = fields.next()?;
        let mode = if mode.eq_ignore_ascii_case(b"octet") {
            Mode::Octet
        } else if mode.eq_ignore_ascii_case(b"netascii") {
            Mode::Netascii
        } else {
            Mode::Other
        };
        let mut options = Vec::new();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) {
                options.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        Some(Self { file, mode, options })
    }
}

/// An OACK (RFC 2347 §3).
pub fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut out = vec![0, 6];
    for (name, value) in options {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(0);
    }
    out
}

/// An ERROR.
pub fn error(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut out = vec![0, 5, 0, code as u8];
    out.extend(text.bytes().filter(|&b| b != 0));
    out.push(0);
    out
}

/// The head of a DATA packet; the block's bytes follow.
pub fn data_head(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// Text for humans and logs, at most 200 characters.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Request> {
        match Packet::decode(bytes) {
            Some(Packet::Read(request)) => Some(request),
            _ => None,
        }
    }

    #[test]
    fn a_request_of_edk2_is_read_with_its_options() {
        let r = read(b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0WindowSize\x004\0");
        let r = r.unwrap();
        assert_eq!((r.file.as_slice(), r.mode), (&b"snponly.efi"[..], Mode::Octet));
        assert_eq!(r.options[2], ("windowsize".to_owned(), "4".to_owned()));
    }

    #[test]
    fn broken_packets_are_nothing_and_odd_ones_are_read_as_far_as_they_go() {
        for bytes in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01a",
            b"\0\x01a\0",
            b"\0\x01a\0octet",
            b"\0\x01\0octet\0",
            b"\0\x04\0",
            b"\0\x05\0",
            b"\0\x09abc",
        ] {
            assert_eq!(Packet::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(read(b"\0\x01a\0octet\0blksize\0").unwrap().options, []);
        assert_eq!(read(b"\0\x01a\0octet\0\xff\xfe\x001\0tsize\x000\0").unwrap().options.len(), 1);
        assert_eq!(read(b"\0\x01a\0mail\0").unwrap().mode, Mode::Other);
        assert_eq!(Packet::decode(b"\0\x05\0\x08no\0"), Some(Packet::Error(8, "no".into())));
        assert_eq!(Packet::decode(b"\0\x05\0\x08no"), Some(Packet::Error(8, "no".into())));
    }
}
