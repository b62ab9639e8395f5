//! `.dockerignore`: which files of a folder are not sent to the builder. The
//! rules are those of the Dockerfile reference: the last pattern that fits
//! decides, `!` takes back, a folder that fits takes what is in it along, `**`
//! goes over folders.

/// Largest file of patterns, in bytes.
pub const LARGEST: u64 = 64 << 10;

/// Patterns, in order.
#[derive(Debug, Clone, Default)]
pub struct Ignore(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    keeps: bool,
    tokens: Vec<Token>,
    /// Number of path components it names.
    depth: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Is(char),
    /// `?`
    One,
    /// `*`: within a component.
    Some,
    /// `**`: everything.
    All,
    /// `**/`: nothing, or any folders.
    Folders,
    /// `[a-z]`; true when negated.
    Class(bool, Vec<(char, char)>),
}

impl Ignore {
    /// Reads patterns. What is no pattern fits nothing.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut all = Vec::new();
        for line in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (keeps, body) = match line.strip_prefix('!') {
                Some(b) => (true, b.trim()),
                None => (false, line),
            };
            let clean: Vec<&str> = body.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
            if clean.is_empty() || clean.contains(&"..") {
                continue;
            }
            all.push(Pattern { keeps, tokens: tokens(&clean.join("/")), depth: clean.len() });
        }
        Self(all)
    }

    /// Whether `path` (relative, `/` between components) stays away.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for p in &self.0 {
            // Only what would change the answer is worth a look.
            if p.keeps == ignored && p.fits_it_or_a_folder_above(path) {
                ignored = !p.keeps;
            }
        }
        ignored
    }

    /// Whether something below an ignored folder may be kept all the same.
    pub fn takes_back(&self) -> bool {
        self.0.iter().any(|p| p.keeps)
    }
}

impl Pattern {
    fn fits_it_or_a_folder_above(&self, path: &str) -> bool {
        if fits(&self.tokens, path) {
            return true;
        }
        let above = path.match_indices('/').map(|(i, _)| &path[..i]);
        let wide = self.tokens.iter().any(|t| matches!(t, Token::All | Token::Folders));
        above
            .enumerate()
            .any(|(n, folder)| (wide || n + 1 == self.depth) && fits(&self.tokens, folder))
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let c: Vec<char> = pattern.chars().collect();
    let mut i = 0;
    while let Some(&x) = c.get(i) {
        i += 1;
        out.push(match x {
            '*' if c.get(i) == Some(&'*') => {
                while c.get(i) == Some(&'*') {
                    i += 1;
                }
                if c.get(i) == Some(&'/') {
                    i += 1;
                    Token::Folders
                } else {
                    Token::All
                }
            }
            '*' => Token::Some,
            '?' => Token::One,
            '\\' => {
                i += 1;
                c.get(i - 1).map_or(Token::Is('\\'), |x| Token::Is(*x))
            }
            '[' => match class(&c[i..]) {
                Some((token, used)) => {
                    i += used;
                    token
                }
                None => Token::Is('['),
            },
            x => Token::Is(x),
        });
    }
    out
}

/// What follows `[`: the class, and how many characters it took.
fn class(c: &[char]) -> Option<(Token, usize)> {
    let not = c.first() == Some(&'^');
    let mut i = usize::from(not);
    let mut ranges = Vec::new();
    loop {
        match *c.get(i)? {
            ']' if !ranges.is_empty() => return Some((Token::Class(not, ranges), i + 1)),
            mut low => {
                if low == '\\' {
                    i += 1;
                    low = *c.get(i)?;
                }
                let high = match (c.get(i + 1), c.get(i + 2)) {
                    (Some('-'), Some(h)) if *h != ']' => {
                        i += 2;
                        *h
                    }
                    _ => low,
                };
                ranges.push((low, high));
                i += 1;
            }
        }
    }
}

/// All places of the pattern are tried side by side, so that no pattern takes
/// longer than its length times that of the path.
fn fits(tokens: &[Token], path: &str) -> bool {
    let end = tokens.len();
    let mut now = vec![false; end + 1];
    let open = |states: &mut Vec<bool>| {
        // Tokens that may be nothing.
        for i in 0..end {
            if states[i] && matches!(tokens[i], Token::Some | Token::All | Token::Folders) {
                states[i + 1] = true;
            }
        }
    };
    // `**/` ends where a component begins: after one it is entered anew.
    let mut inside = vec![false; end + 1];
    now[0] = true;
    open(&mut now);
    for c in path.chars() {
        let mut next = vec![false; end + 1];
        let mut next_inside = vec![false; end + 1];
        for i in 0..end {
            if inside[i] {
                if c == '/' {
                    next[i + 1] = true;
                }
                next_inside[i] = true;
            }
            if !now[i] {
                continue;
            }
            match &tokens[i] {
                Token::Is(x) if *x == c => next[i + 1] = true,
                Token::One if c != '/' => next[i + 1] = true,
                Token::Some if c != '/' => next[i] = true,
                Token::All => next[i] = true,
                Token::Folders => {
                    if c == '/' {
                        next[i + 1] = true;
                    }
                    next_inside[i] = true;
                }
                Token::Class(not, ranges)
                    if c != '/' && ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *not =>
                {
                    next[i + 1] = true;
                }
                _ => {}
            }
        }
        now = next;
        inside = next_inside;
        open(&mut now);
    }
    now[end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_fit_as_the_reference_says() {
        for (patterns, ignored, kept) in [
            ("a", &["a", "a/b", "a/b/c"][..], &["b/a", "ab"][..]),
            ("*/temp*", &["x/temp", "x/temporary.txt", "x/temp/y"], &["temp", "x/y/temp"]),
            ("temp?", &["tempa", "tempb/c"], &["temp", "tempab"]),
            ("**/*.go", &["a.go", "x/y/a.go"], &["a.gox"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b"]),
            ("**", &["a", "a/b"], &[]),
            ("*.md\n!README.md", &["x.md"], &["README.md", "a/x.md"]),
            ("*.md\n!README*.md\nREADME-secret.md", &["README-secret.md"], &["README.md"]),
            ("docs\n!docs/keep", &["docs", "docs/x"], &["docs/keep", "docs/keep/y"]),
            ("/a/\n./b\n# c\n\n .d ", &["a", "b", ".d"], &["c", "# c"]),
            ("[a-c]x\n[^a]y\n\\*", &["bx", "by", "*"], &["dx", "ay", "z"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]),
            ("**/node_modules", &["node_modules/x", "p/node_modules/x/y"], &["xnode_modules"]),
            ("../x\n!\n/", &[], &["x", "../x"]),
        ] {
            let i = Ignore::parse(patterns);
            for path in ignored {
                assert!(i.ignores(path), "{patterns:?} should ignore {path}");
            }
            for path in kept {
                assert!(!i.ignores(path), "{patterns:?} should keep {path}");
            }
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let i = Ignore::parse(&"*a".repeat(2000));
        assert!(!i.ignores(&"a".repeat(1999)));
    }

    proptest! {
        #[test]
        fn no_pattern_panics(text in "[a*?!/\\[\\]\\\\^.\n-]{0,40}", path in "[a/.b]{0,20}") {
            let _ = Ignore::parse(&text).ignores(&path);
        }

        #[test]
        fn a_plain_name_ignores_itself(path in "[a-z]{1,4}(/[a-z]{1,4}){0,3}") {
            prop_assert!(Ignore::parse(&path).ignores(&path));
        }
    }
}
