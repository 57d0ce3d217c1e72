"""The one Python process of a guest: calls functions for the host, over a serial line.

A line in: ["module:function", {arguments}], or "FILE" with that in it; a line out: {"result": …} or {"error": text}.
"""
import importlib
import json
import os
import sys
import traceback
import tty


def serve(line):
    def send(answer):
        data = (json.dumps(answer) + '\n').encode()
        while data:
            data = data[os.write(line, data):]

    send({'result': 'ready'})
    with open(line, 'rb', buffering=0, closefd=False) as requests:
        while True:
            request = requests.readline()
            if not request:
                return
            try:
                request = json.loads(request)
                if isinstance(request, str):            # it is in that file
                    with open(request) as f:
                        request = json.load(f)
                name, arguments = request
                module, _, function = name.partition(':')
                call = getattr(importlib.import_module(module), function)
                send({'result': call(**arguments)})
            except Exception:                   # whatever it is, the test shall see it
                send({'error': traceback.format_exc()})


if __name__ == '__main__':
    sys.path.insert(0, os.getcwd())
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    serve(fd)
