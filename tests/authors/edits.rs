//! `hostler dev`: an edit goes live, and a broken one does not.

use crate::installed::{Dev, Project};

#[test]
fn an_edit_goes_live_and_a_broken_one_does_not() {
    let project = Project::new("js", "model");
    let dev = Dev::start(&project);
    dev.answers(&project, r#""y":[2.0,5.0]"#);
    project.replace("app.js", "2 * element", "3 * element");
    dev.answers(&project, r#""y":[3.0,7.5]"#);
    project.replace("app.js", "3 * element", "3 * * element");
    dev.says("waiting for a change");
    dev.answers(&project, r#""y":[3.0,7.5]"#);
    project.replace("app.js", "3 * * element", "4 * element");
    dev.answers(&project, r#""y":[4.0,10.0]"#);
}
