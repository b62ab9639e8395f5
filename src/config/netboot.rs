//! `[netboot]`: which boot loader UEFI nodes are given where neither their
//! label nor what was seen of their firmware decides.

use super::resolved::{Fault, fault};
use super::wire;
use crate::model::Loader;

pub(super) fn uefi_loader(w: wire::Netboot) -> Result<Loader, Fault> {
    match w.uefi_loader {
        None => Ok(Loader::Ipxe),
        Some(s) => match s.get_ref().parse() {
            Ok(l @ (Loader::Ipxe | Loader::Grub)) => Ok(l),
            _ => fault(
                s.span(),
                format!(
                    "uefi_loader {:?} is not known: \"ipxe\", or \"grub\" for the signed shim and \
                     GRUB that Secure Boot asks for",
                    s.get_ref()
                ),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Loader;
    use std::path::Path;

    #[test]
    fn the_uefi_loader_is_ipxe_or_grub_and_nothing_else() {
        let read = |netboot: &str| {
            let text = format!(
                "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
                 range=['10.1.0.10','10.1.0.12']\n{netboot}"
            );
            super::super::parse(&text, "f", Path::new("/"))
        };
        assert_eq!(read("").unwrap().uefi_loader, Loader::Ipxe);
        assert_eq!(read("[netboot]\nuefi_loader='grub'\n").unwrap().uefi_loader, Loader::Grub);
        let e = read("[netboot]\nuefi_loader='pxelinux'\n").unwrap_err().to_string();
        assert!(e.contains("f:7") && e.contains("\"grub\" for"), "{e}");
    }
}
