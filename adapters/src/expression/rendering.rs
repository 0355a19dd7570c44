//! A delivery being rendered for its target.

use std::{
    cell::OnceCell,
    sync::{Arc, LazyLock},
};

use super::{Expression, ExpressionError, Input, Output, Place, Template, Variables};
use crate::Delivery;

/// For what uses no variables.
static NONE: LazyLock<Variables> = LazyLock::new(Variables::default);

/// One attempt of a delivery, whose event is the input. The variables cost a hash and some texts,
/// and bare paths know none: they are made when the first program asks.
pub(crate) struct Rendering<'a> {
    pub(crate) delivery: &'a Arc<Delivery>,
    attempt: u32,
    input: &'a Input,
    variables: OnceCell<Variables>,
}

impl<'a> Rendering<'a> {
    /// Attempt number `attempt` (1 for the first) of `delivery`, whose event is `input`.
    pub(crate) fn new(delivery: &'a Arc<Delivery>, attempt: u32, input: &'a Input) -> Self {
        Self { delivery, attempt, input, variables: OnceCell::new() }
    }

    /// Runs `expression`.
    ///
    /// # Errors
    /// As [`Expression::run`].
    pub(crate) fn run(&self, expression: &Expression) -> Result<Output, ExpressionError> {
        expression.run(self.input, self.variables(expression.uses_variables()))
    }

    /// Renders `template` for `place`.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render(
        &self,
        template: &Template,
        place: Place,
    ) -> Result<Option<String>, ExpressionError> {
        template.render(self.input, self.variables(template.uses_variables()), place)
    }

    fn variables(&self, used: bool) -> &Variables {
        match used {
            true => self.variables.get_or_init(|| Variables::of(self.delivery, self.attempt)),
            false => &NONE,
        }
    }
}
