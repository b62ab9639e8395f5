//! What is around every page: who looks, where, and how old it is.

use super::dress::Fault;
use super::session::Seat;
use super::view::text::At;
use super::{Window, assets};
use crate::api::Problem;
use crate::model::Time;
use crate::store::EventQuery;
use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

/// Who looks.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub name: String,
    pub role: String,
    /// The form token.
    pub form: String,
}

/// The frame of a page.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub title: String,
    /// Which entry of the bar is this one's.
    pub tab: &'static str,
    pub who: Option<Who>,
    pub made: At,
    /// The newest event when the page was made: news start after it.
    pub seq: Option<u64>,
    /// Whether the page changes by itself.
    pub live: bool,
    /// Or, where no news tell, is looked at again after so many seconds.
    pub every: Option<u32>,
    pub style: String,
    pub script: String,
}

impl Frame {
    /// The entries of the bar: address, word.
    pub const BAR: [(&'static str, &'static str); 8] = [
        ("/ui/", "Rack"),
        ("/ui/builds", "Builds"),
        ("/ui/operations", "Operations"),
        ("/ui/events", "Events"),
        ("/ui/images", "Images"),
        ("/ui/profiles", "Profiles"),
        ("/ui/mirrors", "Mirrors"),
        ("/ui/software", "Software"),
    ];

    /// A frame for somebody, or for nobody yet.
    pub fn plain(title: &str, tab: &'static str, who: Option<Who>, now: Time) -> Self {
        Self {
            title: title.to_owned(),
            tab,
            who,
            made: At::new(now, now),
            seq: None,
            live: false,
            every: None,
            style: assets::style_at(),
            script: assets::script_at(),
        }
    }

    /// A frame that does not change by itself.
    pub fn still(w: &Window, seat: &Seat, title: &str, tab: &'static str) -> Self {
        Self::plain(title, tab, Some(seat.who(w)), Time::now())
    }

    /// A frame of a page that follows the news.
    pub async fn live(w: &Window, seat: &Seat, title: &str, tab: &'static str) -> Self {
        let newest = EventQuery { limit: 1, ..EventQuery::default() };
        // Asked before the page is filled: news that come meanwhile come again.
        // A store that is away gives no number, and the page says as much.
        let seq = w.ctx.rack.store().query(&newest).await.ok();
        let seq = seq.map(|e| e.last().map_or(0, |e| e.seq));
        Self { seq, live: true, ..Self::still(w, seat, title, tab) }
    }
}

/// A rendered page.
pub(super) fn show(page: &impl Template) -> Result<Response, Fault> {
    show_as(StatusCode::OK, page)
}

/// A rendered page with a status.
pub(super) fn show_as(status: StatusCode, page: &impl Template) -> Result<Response, Fault> {
    let text = page.render().map_err(|e| Problem::internal(format!("the page: {e}")))?;
    Ok((status, Html(visible(text))).into_response())
}

/// Characters that change what others look like (controls, and those that turn
/// the direction of writing) are shown as their numbers: a label or a line of
/// a log must not read as another. No page of ours has any.
fn visible(html: String) -> String {
    let strange = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    if !html.contains(strange) {
        return html;
    }
    let mut out = String::with_capacity(html.len() + 64);
    for c in html.chars() {
        match c {
            '\r' => {}
            c if strange(c) => out.push_str(&format!("\u{27e8}U+{:04X}\u{27e9}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn characters_that_mislead_are_shown_by_number() {
        for (text, want) in [
            ("node01\ttab\nline", "node01\ttab\nline"),
            ("a\u{202e}gpj.exe", "a⟨U+202E⟩gpj.exe"),
            ("\u{1b}[31mred\r\n", "⟨U+001B⟩[31mred\n"),
            ("zero\u{200b}width", "zero⟨U+200B⟩width"),
            ("Zürich · ● 45 %", "Zürich · ● 45 %"),
        ] {
            assert_eq!(visible(text.to_owned()), want);
        }
    }
}
