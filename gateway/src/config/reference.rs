//! The reference that is made of the schema: `config/schema.json` for editors, and
//! `config/every-key.yaml` for people. Both are in the repository, and tests hold them against what
//! is made here.

mod about;
mod every_key;
mod schema_json;

pub use every_key::every_key;
pub use schema_json::schema_json;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::refusals;
