//! `snapshot save`: saves a member's database to a file.
//!
//! The file is the database followed by its SHA-256, as the server sends it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use retcd_client::{Client, Error};
use retcd_log::{self as log, ByteSize, go_io_error};

use super::context::{self, Context};
use super::output_file::OutputFile;
use crate::cli::{Command, Exit, ExitKind, Invocation};
use crate::print::print_line;
use crate::progress::Progress;

const EXAMPLES: &str = "  etcdctl snapshot save /backup/etcd.db
  etcdctl --endpoints=127.0.0.1:3000 snapshot save /backup/etcd.db
  etcdctl snapshot save /backup/etcd_$(date +%Y%m%d_%H%M%S).db";

/// A database is a multiple of this size; the remainder of a backup is its checksum.
const PAGE_BYTES: u64 = 512;
const CHECKSUM_BYTES: u64 = 32;

/// The `snapshot` command.
pub(crate) fn command() -> Command {
    let save = Command::new(
        "save",
        "<filename>",
        "Save a member's database to a file",
        save,
    );
    Command::group(
        "snapshot",
        "Back up members",
        vec![
            save.examples(EXAMPLES),
            Command::moved("restore", "etcdutl snapshot restore"),
            Command::moved("status", "etcdutl snapshot status"),
        ],
    )
    .examples(EXAMPLES)
}

fn save(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [path] = texts.as_slice() else {
        return Err(Exit::bad_args(
            "snapshot save expects one argument <filename>",
        ));
    };
    let context = Context::new(invocation, false)?;
    let version = context::run(download(&context, path))?;
    print_line(&format!("Snapshot saved at {path}"))?;
    if !version.is_empty() {
        print_line(&format!("Server version {version}"))?;
    }
    Ok(())
}

fn failed(text: impl ToString) -> Exit {
    Exit::new(ExitKind::Interrupted, text)
}

/// Returns the storage version, if the server reports it.
async fn download(context: &Context, path: &str) -> Result<String, Exit> {
    let [endpoint] = context.config.endpoints.as_slice() else {
        let endpoints = context.config.endpoints.join(" ");
        return Err(failed(format!(
            "snapshot must be requested to one selected node, not multiple [{endpoints}]"
        )));
    };
    let client = context.client().await.map_err(|exit| Exit {
        code: ExitKind::Interrupted as u8,
        ..exit
    })?;
    let client = match context.command_timeout_given {
        true => client.with_timeout(context.command_timeout),
        false => client,
    };
    let mut target = OutputFile::create(Path::new(path)).map_err(failed)?;
    let start = Instant::now();
    let copy = copy_stream(&client, target.file(), endpoint);
    let (bytes, version) = match context.command_timeout_given {
        true => tokio::time::timeout(context.command_timeout, copy)
            .await
            .unwrap_or_else(|_| Err(failed(Error::DeadlineExceeded { last: None }))),
        false => copy.await,
    }?;
    if bytes % PAGE_BYTES != CHECKSUM_BYTES {
        return Err(failed(format!(
            "sha256 checksum not found [bytes: {bytes}]"
        )));
    }
    target.finish().map_err(failed)?;
    log::info!(
        "fetched snapshot";
        "endpoint" => endpoint, "size" => ByteSize(bytes), "took" => start.elapsed(),
        "etcd-version" => version
    );
    log::info!("saved"; "path" => path);
    Ok(version)
}

/// Writes the stream to `file`; returns its length in bytes and the reported storage version.
async fn copy_stream(
    client: &Client,
    file: &mut File,
    endpoint: &str,
) -> Result<(u64, String), Exit> {
    let mut progress = Progress::new();
    let broken = |error: Error| failed(error.text_with_code());
    let mut parts = client.snapshot().await.map_err(broken)?;
    log::info!("fetching snapshot"; "endpoint" => endpoint);
    let (mut bytes, mut version) = (0, String::new());
    while let Some(part) = parts.next().await.map_err(broken)? {
        file.write_all(&part.blob).map_err(|error| {
            failed(format!("could not write snapshot: {}", go_io_error(&error)))
        })?;
        bytes += part.blob.len() as u64;
        let all = bytes + part.remaining_bytes;
        progress.show(bytes, all, ByteSize(all));
        if version.is_empty() {
            version = part.version;
        }
    }
    drop(progress);
    Ok((bytes, version))
}
