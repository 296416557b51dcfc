"""Sends requests that are in flight when the proxy is stopped: upload.py COUNT. Prints `in flight`, then the number that finished.

Each request sends half of its body, waits until the proxy accepts no new connections, sends the rest, and reads the complete response.
"""
import json, socket, sys

HEAD = (b"POST /aggregation/v2/customers/testing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Accept: application/json\r\nContent-Length: %d\r\n\r\n")


def body(number):
    return json.dumps({"username": f"caller-{number}", "firstName": "Grace", "lastName": "x" * 2000}).encode()


def connect():
    return socket.create_connection(("127.0.0.1", 3464), timeout=20)


callers = [connect() for _ in range(int(sys.argv[1]))]
for number, caller in enumerate(callers):
    caller.sendall(HEAD % len(body(number)) + body(number)[:1000])
print("in flight", flush=True)
try:
    while True:
        connect().close()
except ConnectionError:  # refused, or reset while waiting to be accepted
    pass
finished = 0
for number, caller in enumerate(callers):
    caller.sendall(body(number)[1000:])
for caller in callers:
    response = b""
    while part := caller.recv(65536):
        response += part
    head, _, rest = response.partition(b"\r\n\r\n")
    finished += head.startswith(b"HTTP/1.1 201 ") and b"connection: close" in head.lower() and json.loads(rest)["id"].isdigit()
print("finished", finished)
