//! Tells the program what it is built from. Without git, or outside a checkout, the revision is `unknown`;
//! `CULVERT_GIT_REVISION` sets it (images are built without `.git`).
#![expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CULVERT_GIT_REVISION");
    let profile =
        if std::env::var_os("PROFILE").is_some_and(|p| p == "release") { "release" } else { "debug" };
    // A development build keeps the revision of its first build: rebuilding the world per commit helps nobody.
    if profile == "release"
        && let Some(head) = output("git", &["rev-parse", "--git-path", "logs/HEAD"])
    {
        println!("cargo:rerun-if-changed={head}");
    }
    let given = std::env::var("CULVERT_GIT_REVISION").ok().filter(|revision| !revision.is_empty());
    let modified = given.is_none() && output("git", &["status", "--porcelain"]).is_some();
    let revision = given.or_else(|| output("git", &["rev-parse", "HEAD"]));
    let suffix = if modified { "-dirty" } else { "" };
    let revision = revision.map_or_else(|| "unknown".to_owned(), |revision| format!("{revision}{suffix}"));
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = output(&compiler, &["--version"]);
    let compiler =
        compiler.as_deref().and_then(|line| line.split(' ').nth(1)).unwrap_or("unknown").to_owned();
    println!("cargo:rustc-env=CULVERT_BUILD_REVISION={revision}");
    println!("cargo:rustc-env=CULVERT_BUILD_STATUS={}", if modified { "Modified" } else { "Clean" });
    println!("cargo:rustc-env=CULVERT_BUILD_RUST={compiler}");
    println!("cargo:rustc-env=CULVERT_BUILD_PROFILE={profile}");
}

/// Standard output of a command that succeeded and said something.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
