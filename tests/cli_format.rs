//! What hands of docker's users expect of every verb: help with an example, --format, --filter.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;

use serde_json::Value;
use shell::Shell;

/// The verbs that the help of `plyfs` lists.
fn verbs(shell: &Shell) -> Vec<String> {
    let help = shell.ok(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let verbs = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs = verbs.map(|line| line.split_whitespace().next().unwrap().to_owned());
    verbs.filter(|verb| verb != "help").collect()
}

#[test]
fn every_verb_has_help_with_an_example() {
    let shell = Shell::new();
    let verbs = verbs(&shell);
    assert!(verbs.len() >= 29, "{verbs:?}");
    for verb in verbs {
        let help = shell.ok(&[&verb, "--help"]);
        let (_, example) =
            help.split_once("Example:\n").unwrap_or_else(|| panic!("{verb}: {help}"));
        assert!(example.contains(&format!("plyfs {verb}")), "{verb}: {example}");
    }
}

#[test]
fn images_are_listed_by_template_and_filter() {
    let shell = Shell::with_busybox();
    let list = |arguments: &[&str]| shell.ok(&[&["images"], arguments].concat());
    let row = "localhost/plyfs/busybox:1.35 bfd2404a434a\n";
    assert_eq!(list(&["--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]), row);
    let table = list(&["--format", "table {{.ID}}\\t{{.Tag}}"]);
    assert_eq!(table, "ID             TAG\nbfd2404a434a   1.35\n");
    let json: Value = serde_json::from_str(&list(&["--format", "{{json .}}"])).unwrap();
    assert_eq!(json["Repository"], "localhost/plyfs/busybox");
    assert!(list(&["--digests"]).contains("DIGEST"));
    let quiet = |filter: &str| list(&["-q", "--filter", filter]);
    assert_eq!(quiet("dangling=true"), "");
    assert_eq!(quiet("dangling=false"), "bfd2404a434a\n");
    assert_eq!(
        (quiet("dangling=1"), quiet("dangling=0")),
        (String::new(), quiet("dangling=false"))
    );
    let refusal = shell.fails(&["images", "--filter", "dangling=maybe"]);
    assert_eq!(refusal, "option --filter: dangling is true or false, not \"maybe\"");
    assert_eq!(quiet("reference=busybox:1.35"), "bfd2404a434a\n");
    assert_eq!(quiet("reference=other"), "");
    let refusal = shell.fails(&["images", "--filter", "color=red"]);
    assert!(refusal.contains("dangling, reference"), "{refusal}");
    let refusal = shell.fails(&["images", "--format", "{{.Nope}}"]);
    assert!(refusal.contains("no field \"Nope\", but CreatedAt"), "{refusal}");
    let refusal = shell.fails(&["images", "--format", "{{range .}}"]);
    assert!(refusal.contains("not understood"), "{refusal}");
}

#[test]
fn containers_are_listed_by_template_and_filter() {
    let shell = Shell::with_busybox();
    for name in ["one", "two"] {
        shell.ok(&["create", "--name", name, "busybox:1.35"]);
    }
    let list = |arguments: &[&str]| shell.ok(&[&["ps", "-a"], arguments].concat());
    let names = "{{.Names}} {{.Image}} {{.State}}";
    let row = |name: &str| format!("{name} localhost/plyfs/busybox:1.35 unmounted\n");
    assert_eq!(list(&["--format", names]), row("two") + &row("one"));
    assert_eq!(list(&["--format", names, "--filter", "name=tw"]), row("two"));
    assert_eq!(
        list(&["--filter", "ancestor=localhost/plyfs/busybox:1.35", "-q"]).lines().count(),
        2
    );
    assert_eq!(list(&["--filter", "status=mounted", "-q"]), "");
    assert_eq!(shell.ok(&["ps", "--filter", "status=unmounted", "-q"]).lines().count(), 2);
}

#[test]
fn what_is_inspected_can_be_picked_from() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let inspect = |format: &str, name: &str| shell.ok(&["inspect", "-f", format, name]);
    assert_eq!(inspect("{{.Name}} {{.State.Mounted}}", "box"), "box false\n");
    assert_eq!(inspect("{{json .Config.Cmd}}", "busybox:1.35"), "[\"/bin/sh\"]\n");
    assert!(inspect("{{.GraphDriver.Data.UpperDir}}", "box").ends_with("/diff\n"));
    let history = shell.ok(&["history", "--format", "{{.CreatedBy}}", "busybox:1.35"]);
    assert_eq!(history.lines().count(), 3);
    let df = shell.ok(&["df", "--format", "{{.Type}} {{.TotalCount}}"]);
    assert_eq!(df, "Images 1\nContainers 1\nLayer archives 3\n");
}
