//! The costs of the stores: `cargo run --release -p synclayer-fjall --example measure [DIRECTORY]`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use synclayer_core::{Batch, ClientStore, CommitNumber, Scan, ServerStore};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};

const RECORDS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("synclayer-measure-{}", std::process::id()));
    client(&dir.join("client"))?;
    server(&dir.join("server"))?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn record(batch: &mut Batch, n: u64) {
    // random text, which doesn't compress to nothing
    let mut rng = fastrand::Rng::with_seed(n);
    let text: Vec<u8> = std::iter::repeat_with(|| rng.alphanumeric() as u8).take(200).collect();
    batch.put(format!("record/todos/{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), text);
}

fn client(path: &Path) -> Result<(), Box<dyn Error>> {
    let start = resident();
    let mut store = FjallClientStore::open(path, ClientOptions::default())?;
    println!("client: open          {:>8} KiB above start", resident().saturating_sub(start));
    let mut peak = 0;
    let mut number = CommitNumber(0);
    let took = Instant::now();
    for n in 0..RECORDS {
        let mut batch = Batch::default();
        record(&mut batch, n);
        number = number.next();
        store.commit(number, batch)?;
        if n % 1_000 == 0 {
            peak = peak.max(resident().saturating_sub(start));
        }
    }
    let rate = RECORDS as f64 / took.elapsed().as_secs_f64();
    println!("client: single writes {rate:>8.0} /s, peak {peak} KiB above start");
    let took = Instant::now();
    for chunk in 0..RECORDS / 100 {
        let mut batch = Batch::default();
        (0..100).for_each(|n| record(&mut batch, RECORDS + chunk * 100 + n));
        number = number.next();
        store.commit(number, batch)?;
        peak = peak.max(resident().saturating_sub(start));
    }
    let rate = RECORDS as f64 / took.elapsed().as_secs_f64();
    println!("client: rows by 100   {rate:>8.0} /s, peak {peak} KiB above start");
    let took = Instant::now();
    let mut seen = 0;
    store.rows().scan(b"", &[0xff], &mut |_, _| {
        seen += 1;
        Ok(Scan::Next)
    })?;
    let rate = seen as f64 / took.elapsed().as_secs_f64();
    println!("client: scanned rows  {rate:>8.0} /s");
    drop(store);
    let took = Instant::now();
    let store = FjallClientStore::open(path, ClientOptions::default())?;
    let kib = resident().saturating_sub(start);
    println!("client: reopen        {:>8.0} ms, {kib} KiB", took.elapsed().as_secs_f64() * 1e3);
    drop(store);
    Ok(())
}

fn server(path: &Path) -> Result<(), Box<dyn Error>> {
    for (durability, writers, each) in [
        (Durability::Synced, 1, 200),
        (Durability::Synced, 50, 200),
        (Durability::Buffered, 1, 20_000),
        (Durability::Buffered, 50, 2_000),
    ] {
        let options = ServerOptions::new().durability(durability);
        let store = FjallServerStore::open(path, options)?;
        let took = Instant::now();
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..each {
                        let written = store.transact(&mut |_| {
                            let mut batch = Batch::default();
                            record(&mut batch, writer * each + n);
                            Ok(batch)
                        });
                        if let Err(error) = written {
                            println!("server: {error}");
                        }
                    }
                });
            }
        });
        let rate = (writers * each) as f64 / took.elapsed().as_secs_f64();
        println!("server: {durability:?}, {writers:>2} writers: {rate:.0} /s, {:?}", store.stats());
    }
    Ok(())
}

/// KiB of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
