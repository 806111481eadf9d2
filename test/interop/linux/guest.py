"""What runs in user-mode Linux as its init: the module that record.py and
accept.py share. Its console is its standard input and output, by which the test
outside leads it: `say` a line, `wait` for one."""

import ctypes
import os
import subprocess
import sys
import time

MODULES = """xfrm_user xfrm_algo af_key esp4 ah4 ipv6 esp6 ah6 xfrm4_tunnel xfrm6_tunnel
    gcm ccm ctr seqiv echainiv cbc hmac authenc authencesn sha1_generic sha256_generic
    sha512_generic md5 des_generic chacha20poly1305 chacha_generic poly1305_generic cmac
    xcbc ghash-generic crypto_null ecb drbg dummy 8021q""".split()


def run(main):
    """Is the guest from its first process to its end."""
    try:
        boot()
        main()
    except Exception as e:
        at = e.__traceback__.tb_next or e.__traceback__
        say("failed: %r in line %d" % (e, at.tb_lineno))
    time.sleep(0.5)  # until the console has it
    os.sync()
    ctypes.CDLL(None).reboot(0x4321fedc)  # power off


def main(script, folder, inside):
    """Is what a script does: outside it starts the guest, whose init is the script again,
    and shares a folder beside it."""
    if os.getpid() == 1:
        run(inside)
    here = os.path.dirname(os.path.abspath(script))
    out = os.path.normpath(os.path.join(here, folder))
    os.makedirs(out, exist_ok=True)
    uml = subprocess.Popen(
        ["linux.uml", "mem=256M", "rootfstype=hostfs", "root=/dev/root", "rootflags=/", "ro", "OUT=" + out,
         "init=" + os.path.abspath(script), "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # at the end of its input the console would hang up
    said = uml.stdout.read()
    print(said)
    sys.exit("recorded" not in said)


def say(line):
    print(line, flush=True)


def wait(line):
    while (given := sys.stdin.readline()) and given.strip() != line:
        pass
    if not given:
        raise EOFError("the console is closed")


def write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
    except FileNotFoundError:
        pass  # a kernel that does not have this switch


def boot():
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    for kind, where in ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"):
        subprocess.run(["mount", "-t", kind, kind, where])
    os.mkdir("/run/out")
    subprocess.run(["mount", "-t", "hostfs", "-o", os.environ["OUT"], "none", "/run/out"])
    release = os.uname().release
    os.makedirs("/run/m/lib/modules")
    os.symlink("/usr/lib/uml/modules/" + release, "/run/m/lib/modules/" + release)
    subprocess.run(["modprobe", "-d", "/run/m", "-a", *MODULES], stderr=subprocess.DEVNULL)
    write("/proc/sys/kernel/modprobe", "\n")  # else each SA waits for it
    for name in "accept_dad", "mld_max_msf":
        for where in "all", "default":
            write(f"/proc/sys/net/ipv6/conf/{where}/{name}", "0")
    write("/run/out/kernel.txt", f"Linux {release} (user-mode), {ip('-V')}")


def ip(*words, batch=None):
    done = subprocess.run(["ip", *words], input=batch, text=True, capture_output=True)
    if done.stderr:
        say("ip " + " ".join(words) + " " + done.stderr)
    return done.stdout
