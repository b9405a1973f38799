//! The ends of connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use synclayer_tokio::{SyncConfig, Transports};
use tungstenite::Message;

use crate::client::Client;
use crate::support::{TIMEOUT, TODOS};

/// A client leaves while a server goes on to send: the server reads its goodbye, and then the end of the
/// stream, and no reset.
pub fn a_goodbye_arrives_whatever_is_unread<C: Client>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = SyncConfig::new(url).collections([TODOS]).transports(Transports::RealtimeOnly);
    let client = C::open(config);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let mut server = tungstenite::accept(stream).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // more than the client takes in before it is told to leave
        let sending = scope.spawn(|| {
            let news = format!(r#"{{"type":"news","text":"{}"}}"#, "x".repeat(50_000));
            let mut frame = vec![0x81, 126];
            frame.extend_from_slice(&(news.len() as u16).to_be_bytes());
            frame.extend_from_slice(news.as_bytes());
            while !is_over.load(Ordering::SeqCst) {
                sender.write_all(&frame).expect("the client is gone without a goodbye");
            }
        });
        assert!(server.read().unwrap().is_text(), "it says hello");
        client.set_online(false);
        while !matches!(server.read().expect("a goodbye"), Message::Close(_)) {}
        is_over.store(true, Ordering::SeqCst);
        sending.join().unwrap();
    });
    let stream = server.get_mut();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 64]).expect("the connection was reset"), 0);
    client.close();
}
