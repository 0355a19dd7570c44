//! Configurations that are wrong, cut short or change under way.
