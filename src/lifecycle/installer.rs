//! What a distribution's own installer adds to a build's life: progress that
//! only its log shows, questions, and a disk that boots before the end.

use super::{Effect, Machine};
use crate::model::{Build, Outcome, Phase};

/// How long somebody at the machine's console has to answer a question.
const ANSWER: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// Whether the node, if it starts over now, is to start from its disk.
pub fn boots_its_disk(build: &Build) -> bool {
    // The installers put the boot loader on the disk before they run our last
    // steps, the agent does it after them.
    let complete = match build.inputs.method.is_installer() {
        true => Phase::Profile,
        false => Phase::FirstBoot,
    };
    build.phase >= complete
}

impl Machine<'_> {
    /// The log shows that it goes on.
    pub(super) fn progress(&mut self, what: Option<String>) {
        if !(Phase::Installer..Phase::FirstBoot).contains(&self.build.phase) {
            return;
        }
        let answered = self.build.question.take().is_some();
        let (limit, now) = (self.limits.of(self.build.phase), self.now);
        if let Some(p) = self.build.phases.last_mut() {
            p.deadline = p.deadline.max(now + limit);
            if what.is_some() || answered {
                p.reason = what;
            }
        }
    }

    /// It asks something, and waits.
    pub(super) fn asked(&mut self, question: String) {
        if !(Phase::Installer..Phase::FirstBoot).contains(&self.build.phase) {
            return;
        }
        self.log("install.question", Outcome::Failed, |e| e.with("question", &question));
        if let Some(p) = self.build.phases.last_mut() {
            p.deadline = self.now + ANSWER;
            p.reason = Some(format!("the installer asks, and waits for an answer: {question}"));
        }
        self.build.question = Some(question);
        self.out.push(Effect::Persist);
    }

    /// The question it stopped at, as the reason of a failure.
    pub(super) fn unanswered(&mut self) -> Option<String> {
        let question = self.build.question.take()?;
        Some(format!("the installer stopped at a question that nobody answered: {question}"))
    }
}
