"""Real processes, sockets and clocks: what memory streams cannot prove. Run alone, one after another."""
