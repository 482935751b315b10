"""Features at past instants: training sets, the values of one entity over time, finished values of all."""
