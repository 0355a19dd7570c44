//! (to be written)

/// What reads the answer.
#[derive(Debug)]
pub struct AnswerRules {}
