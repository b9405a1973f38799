//! A live dashboard on the terminal. Devices report readings, all of one moment in one transaction; what
//! is older than the window is deleted; each program that is open shows the same charts.
//!
//! ```sh
//! synclayer serve --data /tmp/dashboard-server --durability buffered
//! cargo run -p synclayer-tokio --example dashboard                      # shows the charts
//! cargo run -p synclayer-tokio --example dashboard -- --devices 10      # reports, and shows them too
//! cargo run -p synclayer-tokio --example dashboard -- --devices 10 --speed 300   # a day in five minutes
//! ```

mod app;
mod devices;
mod screen;
mod script;

use std::error::Error;
use std::path::PathBuf;

use app::App;
use clap::Parser;
use devices::Devices;
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_tokio::{Store, SyncConfig, SyncLayer};

/// A live dashboard of devices that report readings.
///
/// Keys: o to go offline and online, q to quit. With --script the commands /offline, /online and /quit.
#[derive(Parser)]
struct Args {
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The directory in which the readings are kept; without it they are gone when the program ends.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The number of devices whose readings this program reports.
    #[arg(long, default_value_t = 0)]
    devices: u32,
    /// The readings a second, of all its devices together.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// The speed of the devices' clock.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The minutes after which a reading is deleted, by the devices' clock.
    #[arg(long, default_value_t = 60)]
    keep: u64,
    /// The hours for which the devices report, by their clock; without it they go on.
    #[arg(long)]
    hours: Option<u64>,
    /// Takes lines from the standard input, and prints each new view as a line of JSON.
    #[arg(long)]
    script: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // an index by which the oldest readings are found without reading all of them
    let mut config = SyncConfig::new(args.server).index("readings", "at");
    if let Some(data) = args.data {
        config = config.store(Store::opened_by(move |on_durable| {
            let options = ClientOptions::new().on_durable(on_durable);
            Ok(Box::new(FjallClientStore::open(&data, options)?))
        }));
    }
    let sync = SyncLayer::open(config).await?;
    let readings = sync.collection("readings")?;
    let reporting = (args.devices > 0).then(|| {
        let devices =
            Devices::new(readings.clone(), args.devices, args.rate, args.speed, args.keep);
        tokio::spawn(devices.report(args.hours))
    });
    let app = App::new(sync.clone(), readings.watch(), reporting);
    let ended = if args.script { script::run(app).await } else { screen::run(app).await };
    sync.close().await;
    ended
}
