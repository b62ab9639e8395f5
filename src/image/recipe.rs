//! What goes into an image: one recipe for each release, as data. Packages
//! are the least that a server needs to boot, be reached and be looked after;
//! everything else is a profile's business.

/// One release.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Image name by default, such as `debian-12`.
    pub name: &'static str,
    /// Distribution.
    pub os: &'static str,
    /// Release number.
    pub release: &'static str,
    /// Suite in the archive.
    pub suite: &'static str,
}

/// The recipes there are.
pub const RECIPES: [Recipe; 2] = [
    Recipe { name: "debian-12", os: "debian", release: "12", suite: "bookworm" },
    Recipe { name: "debian-13", os: "debian", release: "13", suite: "trixie" },
];

/// Installers that are added from files: their archive has no package with
/// kernel and ramdisk. There is no recipe to build an image of these.
pub const FROM_FILES: [Recipe; 5] = [
    Recipe { name: "ubuntu-16.04", os: UBUNTU, release: "16.04", suite: "xenial" },
    Recipe { name: "ubuntu-18.04", os: UBUNTU, release: "18.04", suite: "bionic" },
    Recipe { name: "ubuntu-20.04", os: UBUNTU, release: "20.04", suite: "focal" },
    Recipe { name: "ubuntu-22.04", os: UBUNTU, release: "22.04", suite: "jammy" },
    Recipe { name: "ubuntu-24.04", os: UBUNTU, release: "24.04", suite: "noble" },
];

/// What these are made of, and what the package cache has to call their
/// archive.
pub const UBUNTU: &str = "ubuntu";

/// The installer called `name`.
pub fn installer(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().chain(&FROM_FILES).find(|r| r.name == name)
}

/// The names of all installers, for a message.
pub fn installers() -> String {
    let all: Vec<&str> = RECIPES.iter().chain(&FROM_FILES).map(|r| r.name).collect();
    all.join(", ")
}

/// The recipe called `name`.
pub fn find(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|r| r.name == name)
}

/// Packages of every image.
pub const PACKAGES: [&str; 32] = [
    "apt",
    "linux-image-amd64",
    "initramfs-tools",
    "zstd",
    "systemd-sysv",
    "systemd-timesyncd",
    "libpam-systemd",
    "dbus",
    "udev",
    "kmod",
    "passwd",
    "adduser",
    "sudo",
    "login",
    "tzdata",
    "openssh-server",
    "ca-certificates",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
    "less",
    "fdisk",
    "e2fsprogs",
    "dosfstools",
    "grub2-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "efibootmgr",
    // Secure Boot: signed loaders, and the program that tells whether it is on.
    "shim-signed",
    "grub-efi-amd64-signed",
    "mokutil",
];

/// The release's own signed loaders, as netboot gives them to a node that gets
/// this image, and where its packages have them: a shim knows the keys of its
/// own distribution's kernels only.
pub const LOADERS: [(&str, &str); 3] = [
    ("shimx64.efi", "usr/lib/shim/shimx64.efi.signed"),
    ("grubx64.efi", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
    ("mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
];

/// Firmware of network cards and controllers, added when the archive is
/// configured with `non-free-firmware`.
pub const FIRMWARE: [&str; 5] = [
    "firmware-bnx2",
    "firmware-bnx2x",
    "firmware-netxen",
    "firmware-qlogic",
    "firmware-misc-nonfree",
];

/// Paths that dpkg leaves out, now and at every later upgrade: documentation
/// and translations, and kernel modules for what no server has (sound, TV,
/// wireless). Together half of the image.
pub const PATH_RULES: [&str; 17] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=*/lib/modules/*/kernel/sound/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/media/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/staging/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/comedi/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/iio/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/isdn/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/bluetooth/*",
    "path-exclude=*/lib/modules/*/kernel/drivers/net/wireless/*",
    "path-exclude=*/lib/modules/*/kernel/net/bluetooth/*",
    "path-exclude=*/lib/modules/*/kernel/net/mac80211/*",
];

/// Drivers of network cards, for the installer's ramdisk.
pub const NICS: [&str; 20] = [
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "iavf",
    "ice",
    "tg3",
    "bnx2",
    "bnx2x",
    "bnxt_en",
    "mlx4_en",
    "mlx5_core",
    "virtio_net",
    "vmxnet3",
    "r8169",
    "qede",
    "cxgb4",
];

/// Drivers of disks and what is on them: for the installer's ramdisk, and for
/// the installed system's, which has to find the same disk.
pub const DISKS: [&str; 23] = [
    "ahci",
    "ata_piix",
    "nvme",
    "megaraid_sas",
    "mpt3sas",
    "mptsas",
    "aacraid",
    "smartpqi",
    "hpsa",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "vmw_pvscsi",
    "sd_mod",
    "ext4",
    "crc32c_generic",
    "crc32c-intel",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "efivarfs",
    "vmd",
];

/// The rest of the ramdisk's: clock, watchdog-free IPMI, disks' helpers.
pub const EXTRAS: [&str; 4] = ["ipmi_si", "ipmi_devintf", "loop", "dm-mod"];
