//! The lines of a preseed file as `debconf-set-selections` reads them: owner,
//! question, type, value; `#` in the first column is a comment; a backslash at
//! the end joins the next line.

/// The types that debconf knows (debconf-devel(7)).
const TYPES: [&str; 9] =
    ["string", "boolean", "select", "multiselect", "note", "text", "password", "title", "error"];

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Package, `d-i` for the installer.
    pub owner: String,
    /// Question, such as `time/zone`.
    pub key: String,
    /// Type.
    pub kind: String,
    /// Value; may be empty.
    pub value: String,
    /// Line on which it begins, from 1.
    pub line: usize,
}

/// All answers, and what is wrong with the other lines, by line.
pub fn parse(text: &str) -> (Vec<Answer>, Vec<(usize, String)>) {
    let (mut answers, mut faults) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let mut joined = line.trim().to_owned();
        while let Some(head) = joined.strip_suffix('\\') {
            let next = lines.next().map(|(_, l)| l.trim()).unwrap_or_default();
            joined = format!("{} {next}", head.trim_end());
        }
        match answer(&joined, n + 1) {
            Ok(a) => answers.push(a),
            Err(why) => faults.push((n + 1, why)),
        }
    }
    (answers, faults)
}

fn answer(line: &str, n: usize) -> Result<Answer, String> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = after.trim_start();
        word.to_owned()
    };
    let (owner, key, kind) = (word(), word(), word());
    if owner.starts_with('#') {
        return Err(
            "a comment begins in the first column: the installer takes this for an answer".into()
        );
    }
    if !key.contains('/') {
        return Err(format!("'{key}' is no question; a line is OWNER QUESTION TYPE VALUE"));
    }
    if !TYPES.contains(&kind.as_str()) {
        return Err(format!("'{kind}' is no type; there are {}", TYPES.join(", ")));
    }
    let value = rest.to_owned();
    if kind == "boolean" && !matches!(&*value, "true" | "false") {
        return Err(format!("{key} is true or false, not '{value}'"));
    }
    Ok(Answer { owner, key, kind, value, line: n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_debconf_reads_them() {
        let text = "# c\n\nd-i  a/b string  x y \nd-i c/d string a \\\n  b\nd-i e/f boolean maybe\n\
                    d-i g\n  # x/y note\n";
        let (answers, faults) = parse(text);
        let read: Vec<_> = answers.iter().map(|a| (&*a.key, &*a.value, a.line)).collect();
        assert_eq!(read, [("a/b", "x y", 3), ("c/d", "a b", 4)]);
        assert_eq!(faults.iter().map(|f| f.0).collect::<Vec<_>>(), [6, 7, 8]);
    }
}
