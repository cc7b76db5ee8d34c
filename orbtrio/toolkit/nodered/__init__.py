"""Node-RED flows as engines: a runner in JavaScript, and a launcher for one machine."""
