mod suite;
use std::time::Duration;
use suite::Road;
use testkit::Mosquitto;
#[tokio::test]
async fn dbg() {
    let m = Mosquitto::start();
    let dir = m.dir().join("log");
    let road = Road::mosquitto(m);
    let mut slow = road.connect("slow", &["a.data"]).await;
    let sender = road.connect("sender", &[]).await;
    for n in 0..100 {
        sender.publish("a.data", vec![n as u8; 60_000]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    eprintln!("before drain {:?}", slow.bus.counters());
    std::fs::copy(&dir, "/tmp/mlog").unwrap();
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(2), slow.events.recv()).await {}
    std::fs::copy(&dir, "/tmp/mlog2").unwrap(); eprintln!("after drain {:?}", slow.bus.counters());
}
