"""A DNS server for one name: names.py NAME ADDRESS. Serves A and AAAA queries over UDP on 127.0.0.1:53. Other names do not exist.

Prints each name that is queried.
"""
import socket, struct, sys

NAME, ADDRESS = sys.argv[1], socket.inet_aton(sys.argv[2])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("listening", flush=True)
while True:
    query, client = server.recvfrom(4096)
    end, labels = 12, []
    while query[end]:
        labels.append(query[end + 1:end + 1 + query[end]].decode())
        end += 1 + query[end]
    end += 5
    name, kind = ".".join(labels), struct.unpack("!H", query[end - 4:end - 2])[0]
    print(kind, name, flush=True)
    known, address = name.lower() == NAME, b""
    if known and kind == 1:
        address = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 30, 4) + ADDRESS
    flags = 0x8580 if known else 0x8583
    server.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, bool(address), 0, 0) + query[12:end] + address, client)
