//! Every decoder of the wire: any bytes give a value or an error, and what is written again reads the
//! same.
#![no_main]

use interceptor_core::wire::postgres::startup::{self, FirstPacket};
use interceptor_core::wire::postgres::{backend, frame, frontend, sasl};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(header)) = frame::header(data) {
        assert!(header.size >= frame::HEADER_BYTES);
    }
    first_packet(data);
    from_client(data);
    from_server(data);
});

fn first_packet(data: &[u8]) {
    let _ = startup::packet_size(data);
    let Ok(packet) = startup::decode(data) else {
        return;
    };
    match packet {
        FirstPacket::CancelRequest(key) => {
            let again = startup::encode_cancel(&key);
            let Ok(FirstPacket::CancelRequest(read)) = startup::decode(&again) else {
                panic!("a cancel request is not read back");
            };
            assert!(read.is(&key));
        }
        FirstPacket::Startup(asked) => {
            let minor = asked.minor.min(startup::MINOR_MAX);
            let kept = startup::understood(data, minor);
            assert!(kept.len() <= data.len());
            let Ok(FirstPacket::Startup(read)) = startup::decode(&kept) else {
                panic!("a startup packet is not read back");
            };
            assert!(read.extensions.is_empty() && read.minor == minor);
            assert_eq!((read.user, read.database), (asked.user, asked.database));
            assert_eq!(read.replication, asked.replication);
            assert_eq!(read.sets_role, asked.sets_role);
        }
        FirstPacket::SslRequest | FirstPacket::GssEncRequest => assert_eq!(data.len(), 8),
    }
}

fn from_client(data: &[u8]) {
    let _ = frontend::query(data);
    let _ = frontend::parse(data);
    let _ = frontend::object(data);
    let _ = frontend::execute(data);
    let _ = frontend::empty(data);
    let _ = frontend::copy_fail(data);
    let _ = sasl::initial_response(data);
    let _ = sasl::password(data);
    if let Ok(bind) = frontend::bind(data) {
        // No count makes more of them than there are bytes for.
        assert!(bind.parameters.len() * 4 <= data.len());
    }
}

fn from_server(data: &[u8]) {
    let _ = sasl::request(data);
    let _ = backend::backend_key_data(data);
    let _ = backend::negotiate_protocol_version(data);
    let _ = backend::parameter_status(data);
    let _ = backend::ready_for_query(data);
    let _ = backend::command_complete(data);
    let _ = backend::error_fields(data);
    let _ = backend::copy_response(data);
    if let Ok(columns) = backend::row_description(data) {
        assert!(columns.len() * 19 <= data.len());
    }
    if let Ok((count, mut cells)) = backend::data_row(data) {
        let mut read = 0;
        while let Ok(Some(_)) = cells.next_cell() {
            read += 1;
        }
        assert!(read <= count);
    }
}
