//! A program of another make as a peer: a folder for its files, its input and what it prints.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::{Pem, eventually, spawn};

/// Files for one peer, removed with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str, pem: &Pem) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in [("roots.pem", &pem.roots), ("cert.pem", &pem.certificate), ("key.pem", &pem.key)]
        {
            std::fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that ends with its test.
pub(crate) struct Process {
    pub(crate) child: Child,
    input: Option<ChildStdin>,
    /// Standard output, and standard error, as far as it has come.
    pub(crate) output: Rc<RefCell<Vec<u8>>>,
    pub(crate) errors: Rc<RefCell<Vec<u8>>>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (output, errors) = (Rc::<RefCell<Vec<u8>>>::default(), Rc::<RefCell<Vec<u8>>>::default());
        follow(child.stdout.take().unwrap(), output.clone());
        follow(child.stderr.take().unwrap(), errors.clone());
        Self { input: child.stdin.take(), child, output, errors }
    }

    pub(crate) async fn type_in(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).await.unwrap();
        input.flush().await.unwrap();
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until `wanted` has been printed.
    pub(crate) async fn prints(&self, wanted: &[u8]) {
        let what = String::from_utf8_lossy(wanted).into_owned();
        eventually(&what, || contains(&self.output, wanted) || contains(&self.errors, wanted)).await;
    }
}

fn contains(text: &Rc<RefCell<Vec<u8>>>, wanted: &[u8]) -> bool {
    text.borrow().windows(wanted.len()).any(|window| window == wanted)
}

fn follow(mut from: impl tokio::io::AsyncRead + Unpin + 'static, to: Rc<RefCell<Vec<u8>>>) {
    spawn(async move {
        let mut chunk = vec![0; 65_536];
        while let Ok(n) = from.read(&mut chunk).await {
            if n == 0 {
                break;
            }
            to.borrow_mut().extend_from_slice(&chunk[..n]);
        }
    });
}
