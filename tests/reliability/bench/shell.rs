//! The work of the program: an import into a server that runs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::process::{Process, arg};
use crate::report::Report;
use crate::world::{Result, Sizes, document, id};

pub(crate) fn measure(program: &str, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("todos.jsonl");
    write_lines(&file, sizes.held)?;
    let (mut server, address) = Process::server(&dir.path().join("server"))?;
    let replica = dir.path().join("replica");
    let (begun, before) = (Instant::now(), server.used()?.cpu);
    let mut import = Command::new(program);
    import.args(["import", "todos", arg(&file)?, "--data", arg(&replica)?]);
    import.args(["--server", &format!("http://{address}")]).stdout(Stdio::null());
    let ended = import.status()?;
    if !ended.success() {
        return Err(format!("the import ended with {ended}").into());
    }
    let time = begun.elapsed().as_secs_f64();
    report.row(format!("import of {} lines by the shell", sizes.held), time, "s of time");
    let server = (server.used()?.cpu - before) / sizes.held as f64;
    report.note(format!("the server's share {server:.1} µs a line"));
    Ok(())
}

fn write_lines(path: &Path, lines: usize) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for n in 0..lines {
        writeln!(file, "{}", json!({ "id": id(n), "data": document(n) }))?;
    }
    Ok(file.flush()?)
}
