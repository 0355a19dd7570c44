//! (to be written)

/// What reads the answer.
#[derive(Debug)]
pub struct AnswerRules {}

/// (to be written)
pub fn timed_out(request: &super::HttpRequest, timeout: std::time::Duration) -> crate::Failure {
    let _ = (request, timeout);
    todo!()
}
pub struct HttpTarget;
impl HttpTarget { pub fn prepare(&self, d: &std::sync::Arc<crate::Delivery>, n: u32, i: &crate::expression::Input) -> Result<super::HttpRequest, crate::Failure> { let _ = (d,n,i); todo!() } }
