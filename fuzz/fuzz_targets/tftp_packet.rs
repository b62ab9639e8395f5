//! All that TFTP does with a client's bytes before it touches a file: decode,
//! clean the path, agree on options, take in ACKs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use provision::tftp::packet::Packet;
use provision::tftp::terms::Terms;
use provision::tftp::window::{Heard, Window};
use provision::tftp::{Settings, path};

fuzz_target!(|data: &[u8]| {
    let settings = Settings::new(([10, 7, 0, 1], 69).into());
    match Packet::decode(data) {
        Some(Packet::Read(request)) => {
            if let Ok(path) = path::clean(&request.file) {
                assert!(!path.starts_with('/') && !path.contains('\\') && !path.contains('\0'));
                assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
            let terms = Terms::agree(&request, 1_000_000, &settings);
            assert!((8..=1468).contains(&terms.block));
            assert!((1..=16).contains(&terms.window));
            assert!(terms.oack.is_none_or(|oack| oack.len() < 128));
        }
        Some(Packet::Ack(first)) => {
            // The rest of the datagram as further ACKs to a running transfer.
            let mut window = Window::new(first % 17);
            for ack in data.chunks_exact(2) {
                while window.has_room() {
                    window.push();
                }
                let before = window.under_way();
                if let Heard::Advanced(n) = window.heard(u16::from_be_bytes([ack[0], ack[1]])) {
                    assert!(n >= 1 && n <= before);
                    assert_eq!(window.under_way(), before - n);
                }
            }
        }
        _ => {}
    }
});
