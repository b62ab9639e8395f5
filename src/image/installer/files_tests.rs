use super::*;

#[test]
fn a_kernel_says_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("linux");
    let said = |text: &[u8], at: u16| {
        let mut bytes = vec![0; 0x300];
        bytes[0x20E..0x210].copy_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(text);
        fs::write(&file, bytes).unwrap();
        kernel_release(&file)
    };
    assert_eq!(said(b"6.8.0-31-generic (buildd@lcy02) #31\0rest", 0x100), "6.8.0-31-generic");
    for (text, at) in [(&b"\x1b[2J (x)"[..], 0x100), (b"", 0x100), (b"6.8", 0xFFFF)] {
        assert_eq!(said(text, at), "");
    }
    fs::write(&file, b"short").unwrap();
    assert_eq!(kernel_release(&file), "");
}
