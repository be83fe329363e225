"""What tests share: a real upstream on a socket, a scripted one that misbehaves, a client for the real server."""

import signal

for _number, _usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:  # by nohup or a shell's &, and so ignored by what tests start
        signal.signal(_number, _usual)
