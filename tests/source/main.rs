//! The files of a project: what is read of a checkout that somebody else prepared, and whether they are those of the commit.

mod commit;
mod links;
mod programs;
mod project;
mod reasons;
