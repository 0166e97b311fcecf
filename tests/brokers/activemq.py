"""A private ActiveMQ Classic: own configuration, data and port; nothing of an installed instance is read or written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from string import Template

from tests.brokers.broker import Broker
from tests.brokers.process import KeptProcess, accepts
from tests.stomp_client import StompClient

_JAR = Path("/usr/share/activemq/bin/activemq.jar")
# Started for seconds, not for days: compile little, collect simply.
_JAVA_ARGS = (
    "-Xms32m",
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
)
_CONFIG = Template("""\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.springframework.org/schema/beans
        http://www.springframework.org/schema/beans/spring-beans.xsd
        http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="$name" dataDirectory="$folder/data"
      useJmx="false" schedulerSupport="true" persistent="true">
    <persistenceAdapter><kahaDB directory="$folder/data/kahadb" journalMaxFileLength="16mb"/></persistenceAdapter>
    <plugins>
      <simpleAuthenticationPlugin><users>$users</users></simpleAuthenticationPlugin>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
        <authorizationEntry queue=">" read="everybody" write="everybody" admin="everybody"/>
        <authorizationEntry topic=">" read="everybody" write="everybody" admin="everybody"/>
        <authorizationEntry queue="open.>" read="limited" write="limited" admin="limited"/>
        <authorizationEntry topic="open.>" read="limited" write="limited" admin="limited"/>
        <authorizationEntry topic="ActiveMQ.Advisory.>" read="limited" write="limited" admin="limited"/>
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
    </plugins>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="64 mb"/></memoryUsage>
      <storeUsage><storeUsage limit="1 gb"/></storeUsage>
      <tempUsage><tempUsage limit="64 mb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors><transportConnector name="stomp" uri="$uri"/></transportConnectors>
  </broker>
</beans>
""")
_LOGGING = """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %-5p %m (%c)%n
"""


class ActiveMQ(Broker):
    """ActiveMQ Classic with one STOMP listener. `guest` may use everything, `limited` what is named `open.…`."""

    kind = "activemq"
    package = "activemq"

    def __init__(
        self,
        run: Path,
        folder: Path,
        ports: dict[str, int] | None = None,
        *,
        users: dict[str, str] | None = None,
        transport: str = "",
    ) -> None:
        """`users` are further ones with their passwords; `transport` is appended to the listener's options."""
        super().__init__(run, folder, ports)
        self._users = {self.user: self.password, **(users or {})}
        self._transport = transport

    @staticmethod
    def installed() -> bool:
        return _JAR.exists() and shutil.which("java") is not None

    @staticmethod
    def port_names() -> tuple[str, ...]:
        return ("stomp",)

    async def depth(self, queue: str) -> int:
        """Messages of a queue, unacked ones included, counted by a browser that takes nothing.

        `queue` without `/queue/`.
        """
        async with await StompClient.connect(self.address) as client:
            name = await client.subscribe(f"/queue/{queue}", browser="true")
            found = 0
            while (await client.next_message())[0].get("browser") != "end":
                found += 1
            await client.unsubscribe(name)
        return found

    def _prepare(self) -> None:
        for name in ("conf", "data", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        users = [_user(name, word, "everybody") for name, word in self._users.items()]
        text = _CONFIG.substitute(
            name=self.folder.name,
            folder=self.folder,
            users="".join([*users, _user("limited", "limited", "limited")]),
            uri=f"stomp://{self.host}:{self.port}?{self._transport}",
        )
        (self.folder / "conf/activemq.xml").write_text(text)
        (self.folder / "conf/log4j.properties").write_text(_LOGGING)

    def _launch(self) -> KeptProcess:
        folder = self.folder
        properties = {
            "java.io.tmpdir": folder / "tmp",
            "log4j.configuration": f"file:{folder}/conf/log4j.properties",
            "activemq.home": _JAR.parent.parent,
            "activemq.base": folder,
            "activemq.conf": folder / "conf",
            "activemq.data": folder / "data",
            "activemq.classpath": folder / "conf",
        }
        defines = [f"-D{key}={value}" for key, value in properties.items()]
        task = ["-jar", str(_JAR), "start", f"xbean:file:{folder}/conf/activemq.xml"]
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder)}
        command = ["java", *_JAVA_ARGS, *defines, *task]
        return KeptProcess(command, run=self.run, log=folder / "broker.out", env=env, cwd=folder)

    def _ready(self) -> bool:
        return accepts(self.port)


def _user(name: str, password: str, groups: str) -> str:
    return f'<authenticationUser username="{name}" password="{password}" groups="{groups}"/>'
