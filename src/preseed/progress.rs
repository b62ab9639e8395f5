//! What an installer's log says of how far it is, and of what it asks.
//!
//! The Debian installer logs each step that its main menu takes, and, with
//! `DEBCONF_DEBUG=5` on the kernel's line, what its steps say to debconf: a
//! question that is put to the operator is one that the preseed file has no
//! answer for. Nobody sits there to give one.

use crate::model::Phase;

/// What one line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It goes on; what it does, where that is worth showing.
    Goes(Option<String>),
    /// A phase begins that no script of ours is called for.
    Begins(Phase, String),
    /// It asks this, and waits.
    Asks(String),
    /// It says nothing about the installer: the kernel, a lease renewed.
    Nothing,
}

/// Reads one installer's log, line by line.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The questions that are about to be shown in one dialogue, by name.
    pending: Vec<String>,
}

/// The steps of the main menu that people want to see, in their words.
const STEPS: &[(&str, &str)] = &[
    ("netcfg", "network"),
    ("network-preseed", "fetching the preseed file"),
    ("choose-mirror", "choosing the mirror"),
    ("download-installer", "loading installer components"),
    ("user-setup-udeb", "users"),
    ("clock-setup", "clock"),
    ("disk-detect", "looking for disks"),
    ("partman-base", "partitioning"),
    ("bootstrap-base", "base system"),
    ("apt-setup-udeb", "package sources"),
    ("apt-mirror-setup", "package sources"),
    ("pkgsel", "packages"),
    ("grub-installer", "boot loader"),
    ("finish-install", "last steps"),
];

/// Programs that talk while the installer waits.
const CHATTER: &[&str] =
    &["kernel", "udhcpc", "dhclient", "dhcpcd", "syslogd", "klogd", "init", "ntpd", "chronyd"];

/// Questions of one dialogue that are remembered.
const DIALOGUE: usize = 16;

impl Progress {
    /// Takes a line of `program`.
    pub fn read(&mut self, program: &str, text: &str) -> Sign {
        if CHATTER.contains(&program) || text.contains("-- MARK --") {
            return Sign::Nothing;
        }
        if text.contains("Downloading a file failed")
            || text.contains("download of the file failed")
        {
            return Sign::Asks(format!("a file could not be downloaded ({})", short(text)));
        }
        if let Some(sign) = self.debconf(text) {
            return sign;
        }
        if let Some(item) = between(text, "Menu item '", "' selected") {
            let shown = STEPS.iter().find(|(name, _)| *name == item).map(|(_, words)| *words);
            let shown = shown.unwrap_or(item).to_owned();
            return match item {
                "bootstrap-base" => Sign::Begins(Phase::Image, shown),
                _ => Sign::Goes(Some(shown)),
            };
        }
        if program == "debootstrap" || program == "base-installer" {
            return Sign::Goes(Some(format!("base system: {}", short(text))));
        }
        if program == "in-target" {
            return Sign::Goes(Some(format!("packages: {}", short(text))));
        }
        Sign::Goes(None)
    }

    /// `--> INPUT critical NAME`, then `<-- 0 question will be asked`, then
    /// `--> GO`, and the answer to that once somebody has given one.
    fn debconf(&mut self, text: &str) -> Option<Sign> {
        if let Some(said) = after(text, "--> ") {
            let mut words = said.split_whitespace();
            match words.next()? {
                "INPUT" => {
                    let name = short(words.nth(1)?);
                    if self.pending.len() < DIALOGUE {
                        self.pending.push(name);
                    }
                    return Some(Sign::Goes(None));
                }
                "GO" => {
                    let asked = std::mem::take(&mut self.pending);
                    return Some(match asked.is_empty() {
                        true => Sign::Goes(None),
                        false => Sign::Asks(asked.join(", ")),
                    });
                }
                _ => return Some(Sign::Goes(None)),
            }
        }
        if let Some(answer) = after(text, "<-- ") {
            // 30: skipped, since it has an answer or is of too low a priority.
            if answer.starts_with("30 ") {
                self.pending.pop();
            }
            return Some(Sign::Goes(None));
        }
        None
    }
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).map(|at| &text[at + mark.len()..])
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    after(text, open)?.split_once(close).map(|(inside, _)| inside)
}

fn short(text: &str) -> String {
    text.trim().chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_and_chatter_is_no_progress() {
        let mut p = Progress::default();
        let menu = "INFO: Menu item 'partman-base' selected";
        assert_eq!(p.read("main-menu", menu), Sign::Goes(Some("partitioning".into())));
        assert_eq!(p.read("kernel", "[ 12.0] random: crng init done"), Sign::Nothing);
        assert_eq!(p.read("udhcpc", "lease obtained"), Sign::Nothing);
        assert_eq!(p.read("anna", "retrieving x"), Sign::Goes(None));
        let base = Sign::Begins(Phase::Image, "base system".into());
        assert_eq!(p.read("main-menu", "INFO: Menu item 'bootstrap-base' selected"), base);
    }

    #[test]
    fn a_question_counts_when_it_is_put_and_not_when_it_is_skipped() {
        let mut p = Progress::default();
        let goes = Sign::Goes(None);
        assert_eq!(p.read("debconf", "--> INPUT critical netcfg/get_hostname"), goes);
        assert_eq!(p.read("debconf", "<-- 30 question skipped"), goes);
        assert_eq!(p.read("debconf", "--> GO"), goes);
        assert_eq!(p.read("debconf", "<-- 0 ok"), goes);
        p.read("debconf", "--> INPUT critical partman/choose_partition");
        p.read("debconf", "<-- 0 question will be asked");
        let asks = Sign::Asks("partman/choose_partition".into());
        assert_eq!(p.read("debconf", "--> GO"), asks);
        assert_eq!(p.read("debconf", "<-- 0 ok"), goes, "answered by somebody");
    }

    #[test]
    fn of_a_dialogue_the_questions_that_have_no_answer_are_told() {
        let mut p = Progress::default();
        for (question, answer) in [
            ("mirror/country", "0 question will be asked"),
            ("mirror/http/hostname", "30 question skipped"),
            ("mirror/http/directory", "0 question will be asked"),
            ("mirror/http/proxy", "30 question skipped"),
        ] {
            p.read("debconf", &format!("--> INPUT high {question}"));
            p.read("debconf", &format!("<-- {answer}"));
        }
        let asks = Sign::Asks("mirror/country, mirror/http/directory".into());
        assert_eq!(p.read("debconf", "--> GO"), asks);
        assert_eq!(p.read("debconf", "--> GO"), Sign::Goes(None), "once");
    }
}
