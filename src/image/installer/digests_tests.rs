use super::*;
use crate::archive::SigningKey;

/// As Debian's and Ubuntu's `InRelease` have them.
const RELEASE: &str = "Suite: stable\nMD5Sum:\n \
    f41c75389c2c011b8c4b6205ea63c53c    80699 main/installer-amd64/20250803/images/SHA256SUMS\n\
    SHA256:\n \
    31a1a4fc99c5b0a729d261f137cd7e1599bfa6f214f83fe4e596543d8ccf2dec    80699 main/installer-amd64/20250803+deb13u7/images/SHA256SUMS\n \
    4a7926cfb968f3040be8f35cf92190369bd142b3215bd6496e83ee646dff8fca    60175 main/installer-amd64/20250803/images/MD5SUMS\n \
    31a1a4fc99c5b0a729d261f137cd7e1599bfa6f214f83fe4e596543d8ccf2dec    80699 main/installer-amd64/current/images/SHA256SUMS\n \
    0dd31c49b2c5b29005f27f1f2d6a98e61b0b9aa7724b09472e3d12348d5f70dd    80699 main/installer-amd64/../x/images/SHA256SUMS\n \
    short 80699 main/installer-amd64/20250803/images/SHA256SUMS\n\
    Acquire-By-Hash: yes\n \
    0dd31c49b2c5b29005f27f1f2d6a98e61b0b9aa7724b09472e3d12348d5f70dd    80699 main/installer-amd64/later/images/SHA256SUMS\n";

#[test]
fn the_lists_of_installers_are_taken_from_the_signed_list_and_nothing_else() {
    let all = lists(RELEASE);
    let versions: Vec<&str> = all.iter().map(|(_, _, v)| v.as_str()).collect();
    assert_eq!(versions, ["20250803+deb13u7"]);
    assert_eq!(all[0].1, "main/installer-amd64/20250803+deb13u7/images/SHA256SUMS");
}

#[test]
fn an_installer_on_a_cd_is_none_that_comes_by_network() {
    let [net, gtk, cd] = ["n", "g", "c"].map(|b| Digest::of(b.as_bytes()));
    let line = |d: Digest, path: &str| format!("{}  {path}\n", d.to_hex());
    let text = line(cd, "./cdrom/initrd.gz")
        + &line(net, "./netboot/debian-installer/amd64/initrd.gz")
        + &line(gtk, "./netboot/gtk/debian-installer/amd64/initrd.gz")
        + &line(cd, "./cdrom/netboot/initrd.gz");
    assert_eq!(netboot(&text).collect::<Vec<_>>(), [net, gtk]);
}

#[test]
fn a_list_beside_is_signed_when_a_distributions_key_has_signed_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::open(&dir.path().join("key")).unwrap();
    let (list, rings) = (dir.path().join("SHA256SUMS"), dir.path().join("keyrings"));
    let text = format!("{}  ./linux\n", Digest::of(b"x").to_hex());
    fs::write(&list, &text).unwrap();
    fs::create_dir(&rings).unwrap();
    assert!(!is_signed(&list, &rings), "no signature");
    fs::write(list.with_extension("gpg"), key.detached(text.as_bytes(), 1_789_199_741)).unwrap();
    assert!(!is_signed(&list, &rings), "no key");
    // Somebody's, who signs no distribution.
    for other in ["somebody.gpg", "debian-maintainers.gpg", "debian-archive-removed-keys.gpg"] {
        fs::write(rings.join(other), key.public()).unwrap();
    }
    assert!(!is_signed(&list, &rings));
    fs::write(rings.join("ubuntu-archive-keyring.gpg"), key.public()).unwrap();
    assert!(is_signed(&list, &rings));
    fs::write(&list, text.replace("linux", "other")).unwrap();
    assert!(!is_signed(&list, &rings), "another text");
}
