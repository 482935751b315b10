"""What features are about. One line per entity; a key is what a request must bring along."""

from __future__ import annotations

from forebay import Entity, String

origin_airport = Entity("origin_airport", keys={"origin": String}, description="An airport that flights leave from.")
airline = Entity("airline", keys={"carrier": String}, description="An airline, by its two-letter code.")
aircraft = Entity("aircraft", keys={"tail_number": String}, description="One aeroplane, by its tail number.")
