//! The text that Prometheus reads (exposition format 0.0.4): families with
//! help and type, each once, values escaped. A family without values is left
//! out. It knows nothing of what is counted.

use crate::model::Times;
use std::fmt::Write as _;

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, until the program starts anew.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How many took at most so long.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A number; whole ones keep all their digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Whole.
    Whole(u64),
    /// Any.
    Real(f64),
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::Whole(n)
    }
}

impl From<usize> for Number {
    fn from(n: usize) -> Self {
        Self::Whole(n as u64)
    }
}

impl From<bool> for Number {
    fn from(yes: bool) -> Self {
        Self::Whole(u64::from(yes))
    }
}

impl From<f64> for Number {
    fn from(n: f64) -> Self {
        Self::Real(n)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Whole(n) => write!(f, "{n}"),
            Self::Real(n) if n == f64::INFINITY => f.write_str("+Inf"),
            Self::Real(n) if n == f64::NEG_INFINITY => f.write_str("-Inf"),
            Self::Real(n) => write!(f, "{n}"),
        }
    }
}

/// Labels of one number.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// The text; see the module.
#[derive(Debug, Default)]
pub struct Exposition {
    out: String,
}

impl Exposition {
    /// Content type of the text.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a family. Each name may be begun once; a counter's ends in
    /// `_total`, and what has a unit names it: `_seconds`, `_bytes`.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family { out: &mut self.out, name, kind, help, begun: false }
    }

    /// A counter of one number.
    pub fn counter(&mut self, name: &str, help: &str, n: impl Into<Number>) {
        self.family(name, Kind::Counter, help).is(&[], n);
    }

    /// A gauge of one number.
    pub fn gauge(&mut self, name: &str, help: &str, n: impl Into<Number>) {
        self.family(name, Kind::Gauge, help).is(&[], n);
    }

    /// The text.
    pub fn text(self) -> String {
        self.out
    }
}

/// A family of numbers that differ in their labels.
pub struct Family<'a> {
    out: &'a mut String,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    begun: bool,
}

impl Family<'_> {
    /// Adds a number. Labels must not come twice.
    pub fn is(&mut self, labels: Labels, n: impl Into<Number>) {
        self.begin();
        self.line("", labels, None, n.into());
    }

    /// Adds a histogram.
    pub fn took(&mut self, labels: Labels, times: &Times) {
        self.begin();
        for (bound, n) in times.at_most() {
            self.line("_bucket", labels, Some(bound), n.into());
        }
        self.line("_bucket", labels, Some(f64::INFINITY), times.count().into());
        self.line("_sum", labels, None, times.sum().into());
        self.line("_count", labels, None, times.count().into());
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        let (name, kind) = (self.name, self.kind.as_str());
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, suffix: &str, labels: Labels, le: Option<f64>, n: Number) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let le = le.map(|bound| Number::Real(bound).to_string());
        let all = labels.iter().copied().chain(le.as_deref().map(|bound| ("le", bound)));
        let mut before = '{';
        for (key, value) in all {
            let _ = write!(self.out, "{before}{key}=\"{}\"", escaped(value));
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {n}");
    }
}

/// As the format wants it between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut e = Exposition::new();
        e.counter("a_total", "Back\\slash,\nnew line", 7u64);
        let _ = e.family("none", Kind::Gauge, "Without values");
        let mut g = e.family("b", Kind::Gauge, "Two");
        g.is(&[("who", "a\"b\\c\nd"), ("x", "")], 0.25);
        g.is(&[("who", "é")], f64::INFINITY);
        let mut t = Times::new(&[0.5, 2.0]);
        t.add(0.25);
        t.add(3.0);
        e.family("c_seconds", Kind::Histogram, "How long").took(&[("p", "q")], &t);
        let want = r#"# HELP a_total Back\\slash,\nnew line
# TYPE a_total counter
a_total 7
# HELP b Two
# TYPE b gauge
b{who="a\"b\\c\nd",x=""} 0.25
b{who="é"} +Inf
# HELP c_seconds How long
# TYPE c_seconds histogram
c_seconds_bucket{p="q",le="0.5"} 1
c_seconds_bucket{p="q",le="2"} 1
c_seconds_bucket{p="q",le="+Inf"} 2
c_seconds_sum{p="q"} 3.25
c_seconds_count{p="q"} 2
"#;
        assert_eq!(e.text(), want);
    }
}
