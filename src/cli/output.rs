//! Tables for people, JSON for scripts.

use super::Fail;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// JSON.
    Json,
}

/// Prints.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    format: Format,
}

impl Out {
    /// See [`Format`].
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a script reads this.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether bars can be drawn.
    pub fn is_terminal(&self) -> bool {
        !self.is_json() && std::io::stderr().is_terminal()
    }

    /// Prints `value` as JSON, or what `table` makes of it.
    pub fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<(), Fail> {
        let mut out = std::io::stdout().lock();
        if self.is_json() {
            serde_json::to_writer_pretty(&mut out, value).map_err(|e| {
                std::io::Error::new(e.io_error_kind().unwrap_or(std::io::ErrorKind::Other), e)
            })?;
            writeln!(out)?;
        } else {
            out.write_all(table(value).text().as_bytes())?;
        }
        Ok(())
    }

    /// A line for people; scripts do not get it.
    pub fn say(&self, line: impl AsRef<str>) -> Result<(), Fail> {
        if !self.is_json() {
            writeln!(std::io::stdout().lock(), "{}", line.as_ref())?;
        }
        Ok(())
    }
}

/// Rows of columns.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    head: usize,
}

impl Table {
    /// With a heading.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|h| h.to_uppercase()).collect()], head: 1 }
    }

    /// Without one.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Adds a row; what a terminal would act on is shown, not sent.
    pub fn row(&mut self, cells: &[String]) {
        let safe = |c: &String| -> String {
            c.chars().map(|x| if x.is_control() { '\u{fffd}' } else { x }).collect()
        };
        self.rows.push(cells.iter().map(safe).collect());
    }

    /// The text, each column as wide as its widest cell.
    pub fn text(&self) -> String {
        if self.head == 1 && self.rows.len() == 1 {
            return "none\n".into();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width: Vec<usize> = (0..columns)
            .map(|i| {
                self.rows
                    .iter()
                    .filter_map(|r| r.get(i))
                    .map(|c| c.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for r in &self.rows {
            let mut line = String::new();
            for (c, w) in r.iter().zip(&width) {
                line.push_str(&format!("{c:w$}  "));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// `12.3 s`, `4 min 05 s`.
pub fn duration(d: jiff::SignedDuration) -> String {
    let s = d.as_secs_f64();
    if s < 100.0 {
        format!("{s:.1} s")
    } else {
        format!("{} min {:02} s", d.as_secs() / 60, d.as_secs() % 60)
    }
}

/// `315 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..=9_999 => format!("{n} B"),
        10_000..=9_999_999 => format!("{} kB", n / 1000),
        10_000_000..=9_999_999_999 => format!("{} MB", n / 1_000_000),
        _ => format!("{} GB", n / 1_000_000_000),
    }
}

/// A path segment of an URL.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}
