//! Results as people read them: on a terminal, in Markdown, and as a page with plots.

mod table;
mod tables;
pub mod terminal;
mod words;
