//! What a client sent, read tolerantly: one odd option never costs the others.
//!
//! dhcproto's owned decoder stops at the first option it cannot type (a host
//! name that is not UTF-8 hides the architecture behind it) and its
//! `chaddr()` panics when `hlen` is above 16. So only its borrowed option
//! iterator is used, on a buffer whose header we read ourselves.

use crate::model::{ClientArch, ClientHints, ClientKind, Mac};
use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use std::net::Ipv4Addr;

/// Bytes before the first option: the BOOTP header and the magic cookie.
const HEADER: usize = 240;
/// More options than any real client sends; a packet of 64 KiB can hold
/// 32,000 and is cut off here.
const MAX_OPTIONS: usize = 512;

/// What the client wants (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// 1.
    Discover,
    /// 3.
    Request,
    /// 4.
    Decline,
    /// 7.
    Release,
    /// 8.
    Inform,
    /// A server's message, lease query, or something newer.
    Other(u8),
}

/// Why a packet was not worth a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Shorter than header and cookie.
    #[error("shorter than a DHCP header")]
    Short,
    /// `op` is not BOOTREQUEST.
    #[error("not a request")]
    NotARequest,
    /// `htype`/`hlen` are not Ethernet's 1/6.
    #[error("not an Ethernet client")]
    NotEthernet,
    /// `chaddr` is zero or a group address.
    #[error("no unicast hardware address")]
    NoMac,
    /// No magic cookie: plain BOOTP.
    #[error("no DHCP magic cookie")]
    NoCookie,
    /// No option 53: plain BOOTP.
    #[error("no message type")]
    NoType,
}

impl Malformed {
    /// A short word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Short => "malformed-short",
            Self::NotARequest => "malformed-not-a-request",
            Self::NotEthernet => "malformed-not-ethernet",
            Self::NoMac => "malformed-no-mac",
            Self::NoCookie => "malformed-no-cookie",
            Self::NoType => "malformed-no-type",
        }
    }
}

/// A client's packet. Options that were absent or of a wrong length are
/// `None`; of duplicates the first good one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Option 53.
    pub kind: MessageType,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// As sent; bit 15 asks for broadcast.
    pub flags: u16,
    /// The address the client already uses.
    pub ciaddr: Ipv4Addr,
    /// The relay agent.
    pub giaddr: Ipv4Addr,
    /// `chaddr`.
    pub mac: Mac,
    /// Option 12, made printable.
    pub hostname: Option<String>,
    /// Option 43.
    pub vendor_options: Option<Vec<u8>>,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 51.
    pub lease: Option<u32>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 55.
    pub parameters: Vec<u8>,
    /// Option 57.
    pub max_size: Option<u16>,
    /// Option 60.
    pub vendor_class: Option<Vec<u8>>,
    /// Option 61.
    pub client_id: Option<Vec<u8>>,
    /// Option 66.
    pub tftp_server: Option<Vec<u8>>,
    /// Option 67.
    pub boot_file: Option<Vec<u8>>,
    /// Option 77.
    pub user_class: Option<Vec<u8>>,
    /// Option 82, to be sent back byte for byte (RFC 3046 §2.2).
    pub relay_info: Option<Vec<u8>>,
    /// Option 93: every architecture named.
    pub archs: Vec<u16>,
    /// Option 94: type, major, minor.
    pub undi: Option<[u8; 3]>,
    /// Option 97 with its type byte.
    pub machine_id: Option<Vec<u8>>,
    /// Option 175 was there (iPXE's encapsulated options).
    pub ipxe_options: bool,
}

impl Request {
    /// Reads a datagram.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Short)?;
        let four =
            |at: usize| -> [u8; 4] { [header[at], header[at + 1], header[at + 2], header[at + 3]] };
        if header[0] != 1 {
            return Err(Malformed::NotARequest);
        }
        if header[1] != 1 || header[2] != 6 {
            return Err(Malformed::NotEthernet);
        }
        if four(236) != dhcproto::v4::MAGIC {
            return Err(Malformed::NoCookie);
        }
        let [a, b, c, d] = four(28);
        let mac = Mac::from_bytes([a, b, c, d, header[32], header[33]]).ok_or(Malformed::NoMac)?;
        let options = Options::read(bytes);
        let kind = match options.fixed::<1>(53).ok_or(Malformed::NoType)?[0] {
            1 => MessageType::Discover,
            3 => MessageType::Request,
            4 => MessageType::Decline,
            7 => MessageType::Release,
            8 => MessageType::Inform,
            n => MessageType::Other(n),
        };
        let owned = |code: u8| options.get(code).filter(|d| !d.is_empty()).map(<[u8]>::to_vec);
        let address = |code: u8| options.fixed::<4>(code).map(Ipv4Addr::from);
        Ok(Self {
            kind,
            xid: u32::from_be_bytes(four(4)),
            secs: u16::from_be_bytes([header[8], header[9]]),
            flags: u16::from_be_bytes([header[10], header[11]]),
            ciaddr: four(12).into(),
            giaddr: four(24).into(),
            mac,
            hostname: options.get(12).and_then(|d| printable(d, 255)),
            vendor_options: owned(43),
            requested: address(50),
            lease: options.fixed::<4>(51).map(u32::from_be_bytes),
            server: address(54),
            parameters: owned(55).unwrap_or_default(),
            max_size: options.fixed::<2>(57).map(u16::from_be_bytes),
            vendor_class: owned(60),
            client_id: owned(61),
            tftp_server: owned(66),
            boot_file: owned(67),
            user_class: owned(77),
            relay_info: owned(82),
            archs: options
                .get(93)
                .unwrap_or_default()
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect(),
            undi: options.fixed::<3>(94),
            machine_id: owned(97),
            ipxe_options: options.get(175).is_some(),
        })
    }

    /// Whether the client cannot take unicast before it has its address
    /// (RFC 2131 §4.1).
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whether a relay agent handed this on.
    pub fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// Which program speaks.
    pub fn client_kind(&self) -> ClientKind {
        let vendor = self.vendor_class.as_deref().unwrap_or_default();
        if self.ipxe_options || self.user_class.as_deref().is_some_and(says_ipxe) {
            ClientKind::Ipxe
        } else if vendor.starts_with(b"HTTPClient") {
            ClientKind::HttpBoot
        } else if vendor.starts_with(b"PXEClient") {
            ClientKind::Pxe
        } else {
            ClientKind::Os
        }
    }

    /// Whether the Debian installer asks, by the vendor class it gives udhcpc.
    pub fn is_debian_installer(&self) -> bool {
        self.vendor_class.as_deref() == Some(b"d-i")
    }

    /// What bears on the choice of what to boot.
    pub fn hints(&self) -> ClientHints {
        ClientHints {
            mac: self.mac,
            kind: self.client_kind(),
            arch: self.arch(),
            vendor_class: self.vendor_class.as_deref().and_then(|v| printable(v, 64)),
            uuid: self.uuid(),
            relay: self.is_relayed().then_some(self.giaddr),
        }
    }

    fn arch(&self) -> Option<ClientArch> {
        let named = || self.archs.iter().copied().map(ClientArch::from_code);
        let known = named().find(|a| !matches!(a, ClientArch::Other(_)));
        known.or_else(|| named().next()).or_else(|| self.arch_in_vendor_class())
    }

    /// `PXEClient:Arch:00007:UNDI:003016` says the architecture again; some
    /// ROMs send option 93 empty or cut short.
    fn arch_in_vendor_class(&self) -> Option<ClientArch> {
        let text = std::str::from_utf8(self.vendor_class.as_deref()?).ok()?;
        let (_, rest) = text.split_once(":Arch:")?;
        let digits = rest.split(':').next()?;
        digits.parse().ok().map(ClientArch::from_code)
    }

    /// Option 97 is a type byte, 0, and 16 bytes (RFC 4578 §2.3).
    fn uuid(&self) -> Option<[u8; 16]> {
        match self.machine_id.as_deref()? {
            [0, uuid @ ..] => uuid.first_chunk().copied(),
            _ => None,
        }
    }
}

/// iPXE sends its user class as bare text; RFC 3004 wants each class behind a
/// length byte, and some relays and builds do so.
fn says_ipxe(user_class: &[u8]) -> bool {
    let mut rest = user_class;
    if rest == b"iPXE" {
        return true;
    }
    while let Some((&len, tail)) = rest.split_first() {
        let Some(class) = tail.get(..usize::from(len)) else { return false };
        if class == b"iPXE" {
            return true;
        }
        rest = tail.get(usize::from(len)..).unwrap_or_default();
    }
    false
}

/// Text for humans and logs: control characters and what is not UTF-8 become
/// `?`, a trailing NUL (Windows sends one) goes away.
fn printable(bytes: &[u8], limit: usize) -> Option<String> {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    let bytes = bytes.get(..end.min(limit))?;
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '?' } else { c })
        .collect();
    (!text.is_empty()).then_some(text)
}

/// The options of one packet, in the order that RFC 2131 §4.1 gives them:
/// the options field, then `file`, then `sname` where option 52 says so.
struct Options {
    found: Vec<(u8, Vec<u8>)>,
}

impl Options {
    fn read(bytes: &[u8]) -> Self {
        let mut all = Self { found: Vec::new() };
        if let Ok(message) = Message::new(bytes) {
            all.extend(message.opts());
        }
        let overload = all.fixed::<1>(52).map_or(0, |[n]| n);
        if overload & 1 != 0 {
            all.extend(DhcpOptionIterator::new(bytes.get(108..236).unwrap_or_default()));
        }
        if overload & 2 != 0 {
            all.extend(DhcpOptionIterator::new(bytes.get(44..108).unwrap_or_default()));
        }
        all
    }

    fn extend(&mut self, options: DhcpOptionIterator<'_>) {
        let room = MAX_OPTIONS.saturating_sub(self.found.len());
        self.found.extend(options.take(room).map(|o| (o.code().into(), o.data().to_vec())));
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.found.iter().find(|(c, _)| *c == code).map(|(_, data)| data.as_slice())
    }

    /// The first option `code` that has at least `N` bytes. dhcproto joins
    /// adjacent duplicates (RFC 3396), so a doubled option 53 is two bytes
    /// long and the first one counts.
    fn fixed<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.found.iter().filter(|(c, _)| *c == code).find_map(|(_, d)| d.first_chunk().copied())
    }
}
